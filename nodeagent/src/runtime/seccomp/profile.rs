//! A profile as Docker and the Open Container Initiative write it, and the filter that it stands for.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Seek as _},
    str::FromStr as _,
};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde::Deserialize;

use crate::shim::Filter;

/// System calls by number that the library may be too old to know by name. Since Linux 5.1 a new one has the same number
/// on every architecture.
const NEWER: [(&str, u32); 18] = [
    ("futex_waitv", 449),
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
];

/// Beyond the last of [`NEWER`] nobody has judged anything yet. Programs that try something so new have another way if they
/// hear that it is missing, and give up if they hear that it is forbidden.
const JUDGED_LAST: u32 = 466;

/// From here on numbers are those of x32, which has its own.
const X32: u32 = 0x4000_0000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<i32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Family>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<Rule>>,
}

/// An architecture, and those whose programs it runs too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<i32>,
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    /// For a container that may come to hold `capabilities`.
    pub(super) fn compile(&self, capabilities: &BTreeSet<String>) -> Result<Filter, String> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut context = ScmpFilterContext::new(default).map_err(|error| error.to_string())?;
        for architecture in self.architectures() {
            let architecture = ScmpArch::from_str(architecture).map_err(|error| error.to_string())?;
            context.add_arch(architecture).map_err(|error| error.to_string())?;
        }
        // By bisection. Older libraries cannot.
        let _ = context.set_ctl_optimize(2);
        let mut newer = Vec::new();
        for rule in self.syscalls.iter().flatten().filter(|rule| rule.applies(capabilities)) {
            rule.add(&mut context, default, &mut newer)?;
        }
        let program = with_newer(&export(&context)?, &newer, default);
        Ok(Filter::new(&program, self.flags()?))
    }

    fn architectures(&self) -> Vec<&String> {
        if let Some(named) = self.architectures.as_ref().filter(|named| !named.is_empty()) {
            return named.iter().collect();
        }
        let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
        let families = self.arch_map.iter().flatten();
        let own = families.filter(|family| family.architecture == native);
        own.flat_map(|family| {
            std::iter::once(&family.architecture).chain(family.sub_architectures.iter().flatten())
        })
        .collect()
    }

    /// As the kernel numbers them.
    fn flags(&self) -> Result<u32, String> {
        self.flags.iter().flatten().try_fold(0, |flags, flag| match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | 1 << 1),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | 1 << 2),
            // There is one thread when it is loaded.
            "SECCOMP_FILTER_FLAG_TSYNC" => Ok(flags),
            other => Err(format!("flag {other} is not supported")),
        })
    }
}

impl Rule {
    fn applies(&self, capabilities: &BTreeSet<String>) -> bool {
        self.includes.as_ref().is_none_or(|includes| includes.holds(capabilities))
            && !self.excludes.as_ref().is_some_and(|excludes| excludes.holds_in_part(capabilities))
    }

    fn add(
        &self,
        context: &mut ScmpFilterContext,
        default: ScmpAction,
        newer: &mut Vec<u32>,
    ) -> Result<(), String> {
        let action = action(&self.action, self.errno_ret)?;
        if action == default {
            // The library refuses what says nothing.
            return Ok(());
        }
        let comparisons = self.comparisons()?;
        for name in self.names.iter().flatten().chain(&self.name) {
            match ScmpSyscall::from_name(name) {
                Ok(call) => {
                    add(context, action, call, &comparisons).map_err(|why| format!("{name}: {why}"))?
                }
                Err(_) if action == ScmpAction::Allow && comparisons.is_empty() => {
                    newer.extend(NEWER.iter().find(|(known, _)| known == name).map(|(_, number)| number));
                }
                // Of another architecture: nobody can make that call here.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn comparisons(&self) -> Result<Vec<(u32, ScmpArgCompare)>, String> {
        let compare = |argument: &Argument| {
            let op = ScmpCompareOp::from_str(&argument.op).map_err(|error| error.to_string())?;
            let (op, value) = match op {
                ScmpCompareOp::MaskedEqual(_) => {
                    (ScmpCompareOp::MaskedEqual(argument.value), argument.value_two.unwrap_or(0))
                }
                op => (op, argument.value),
            };
            Ok((argument.index, ScmpArgCompare::new(argument.index, op, value)))
        };
        self.args.iter().flatten().map(compare).collect()
    }
}

/// All comparisons must hold; but one argument that is compared several times may pass any of them, as runtimes read it.
fn add(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    comparisons: &[(u32, ScmpArgCompare)],
) -> Result<(), String> {
    let indexes: BTreeSet<u32> = comparisons.iter().map(|(index, _)| *index).collect();
    let all: Vec<ScmpArgCompare> = comparisons.iter().map(|(_, comparison)| *comparison).collect();
    let parts = if indexes.len() < all.len() { 1 } else { all.len().max(1) };
    if all.is_empty() {
        return context.add_rule(action, call).map(drop).map_err(|error| error.to_string());
    }
    all.chunks(parts).try_for_each(|part| {
        context.add_rule_conditional(action, call, part).map(drop).map_err(|error| error.to_string())
    })
}

impl Condition {
    /// Everything that it names is there.
    fn holds(&self, capabilities: &BTreeSet<String>) -> bool {
        self.caps.iter().flatten().all(|name| capabilities.contains(name))
            && self.arches.as_ref().is_none_or(|arches| arches.is_empty() || is_own(arches))
            && self.min_kernel.as_deref().is_none_or(|version| kernel_is_at_least(version, &kernel()))
    }

    /// Anything that it names is there.
    fn holds_in_part(&self, capabilities: &BTreeSet<String>) -> bool {
        self.caps.iter().flatten().any(|name| capabilities.contains(name))
            || self.arches.as_ref().is_some_and(|arches| is_own(arches))
            || self.min_kernel.as_deref().is_some_and(|version| kernel_is_at_least(version, &kernel()))
    }
}

fn is_own(arches: &[String]) -> bool {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    arches.iter().any(|arch| arch == own)
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// By the first two numbers of `6.1.0-13-amd64`.
fn kernel_is_at_least(version: &str, release: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let parts = text.split(|c: char| !c.is_ascii_digit()).take(2);
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(release) >= numbers(version)
}

fn action(name: &str, errno: Option<i32>) -> Result<ScmpAction, String> {
    if name == "SCMP_ACT_NOTIFY" {
        return Err("SCMP_ACT_NOTIFY needs somebody to be notified, and this node has nobody".to_owned());
    }
    ScmpAction::from_str(name, Some(errno.unwrap_or(libc::EPERM))).map_err(|error| error.to_string())
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, String> {
    let written = || -> std::io::Result<Vec<u8>> {
        let mut file = File::from(memfd_create(c"filter", MemFdCreateFlag::MFD_CLOEXEC)?);
        context.export_bpf(&file).map_err(std::io::Error::other)?;
        file.rewind()?;
        let mut program = Vec::new();
        file.read_to_end(&mut program)?;
        Ok(program)
    };
    written().map_err(|error| error.to_string())
}

/// The filter, after a few steps of our own that let calls of these numbers pass, and answer that what is too new to have
/// been judged is missing.
fn with_newer(program: &[u8], allowed: &[u32], default: ScmpAction) -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const JUMP_IF_NOT_LESS: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const MISSING: u32 = 0x0005_0000 | libc::ENOSYS.cast_unsigned();
    // The number of the call is what the filter is given first.
    let mut steps: Vec<(u16, u8, u8, u32)> = vec![(LOAD, 0, 0, 0)];
    // Behind the rest: both answers.
    let count = u8::try_from(allowed.len()).unwrap_or(u8::MAX);
    steps.push((JUMP_IF_NOT_LESS, count + 3, 0, X32));
    for (done, number) in (0..count).zip(allowed) {
        steps.push((JUMP_IF_EQUAL, count - done, 0, *number));
    }
    // Who is asked to forbid by an error forbids what it does not know; others may mean to allow it.
    let forbids = matches!(default, ScmpAction::Errno(_));
    steps.push((JUMP_IF_GREATER, if forbids { 1 } else { 2 }, 2, JUDGED_LAST));
    steps.push((RETURN, 0, 0, ALLOW));
    steps.push((RETURN, 0, 0, MISSING));
    let mut whole = Vec::with_capacity(steps.len() * 8 + program.len());
    for (code, then, otherwise, value) in steps {
        whole.extend(code.to_ne_bytes());
        whole.extend([then, otherwise]);
        whole.extend(value.to_ne_bytes());
    }
    whole.extend(program);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, is_newer) in
            [("6.1.0-13-amd64", true), ("4.8.0", true), ("4.7.9", false), ("3.10", false)]
        {
            assert_eq!(kernel_is_at_least("4.8", release), is_newer, "{release}");
        }
    }

    #[test]
    fn rules_apply_by_capability_architecture_and_kernel() {
        let rule = |conditions: &str| -> Rule {
            serde_json::from_str(&format!(
                r#"{{"names": ["mount"], "action": "SCMP_ACT_ALLOW" {conditions}}}"#
            ))
            .unwrap()
        };
        let admin = BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]);
        for (conditions, for_admins, for_others) in [
            ("", true, true),
            (r#", "includes": {"caps": ["CAP_SYS_ADMIN"]}"#, true, false),
            (r#", "excludes": {"caps": ["CAP_SYS_ADMIN"]}"#, false, true),
            (r#", "includes": {"arches": ["s390x"]}"#, false, false),
            (r#", "includes": {"arches": ["amd64", "arm64", "riscv64"], "minKernel": "4.8"}"#, true, true),
            (r#", "includes": {"minKernel": "99.0"}"#, false, false),
        ] {
            assert_eq!(rule(conditions).applies(&admin), for_admins, "{conditions}");
            assert_eq!(rule(conditions).applies(&BTreeSet::new()), for_others, "{conditions}");
        }
    }

    #[test]
    fn what_cannot_be_held_is_refused_by_name() {
        let compile = |text: &str| {
            let profile: Profile = serde_json::from_str(text).unwrap();
            profile.compile(&BTreeSet::new()).map(drop)
        };
        assert!(compile(r#"{"defaultAction": "SCMP_ACT_DREAM"}"#).unwrap_err().contains("SCMP_ACT_DREAM"));
        let notify = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "mount", "action": "SCMP_ACT_NOTIFY"}]}"#;
        assert!(compile(notify).unwrap_err().contains("SCMP_ACT_NOTIFY"));
        let flag = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}"#;
        assert!(compile(flag).unwrap_err().contains("SECCOMP_FILTER_FLAG_X"));
        assert_eq!(compile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), Ok(()));
    }
}
