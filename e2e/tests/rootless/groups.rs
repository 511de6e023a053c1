//! Control groups that a user was given. Where these limit nothing (version 1 has the controllers), what is put where is looked at all
//! the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use claw_e2e::{user::User, wait};

use crate::{NODE, apply, can_run, cluster, delete_all, one_inside};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [sleep, "1000000"]
      resources: {limits: {cpu: 500m, memory: 64Mi}}
"#;

/// A group of version 2, removed with all below it.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let group = root.join(name);
        fs::create_dir_all(&group).unwrap();
        Some(Self(group))
    }

    fn below(&self) -> Vec<PathBuf> {
        let mut all = vec![self.0.clone()];
        let mut next = 0;
        while let Some(group) = all.get(next) {
            let groups = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
            let groups: Vec<_> = groups.filter(|path| path.is_dir()).collect();
            all.extend(groups);
            next += 1;
        }
        all
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Those who were in it may have been killed just now.
        let _ = wait::within(wait::SOON, || self.below().iter().rev().try_for_each(fs::remove_dir));
    }
}

#[test]
fn containers_are_in_the_control_groups_that_a_user_was_given() {
    let story = "containers_are_in_the_control_groups_that_a_user_was_given";
    if !can_run(story) {
        return;
    }
    let Some(group) = Group::new(&format!("claw-e2e-{}", std::process::id())) else {
        eprintln!("SKIPPED {story}: no control groups of version 2 are mounted");
        return;
    };
    let (cluster, _) = cluster(|scratch| User::in_group(scratch, &group.0));
    let kubectl = cluster.kubectl();
    apply(&kubectl, POD, &["limited"]);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", one_inside(&cluster, "sleep"))).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let name = group.0.file_name().unwrap().to_str().unwrap();
    assert!(own.starts_with(&format!("{name}/clawbernetes/pod")), "{groups}");

    let controllers = fs::read_to_string(group.0.join("cgroup.controllers")).unwrap();
    let limits = |kind: &str| controllers.split_whitespace().any(|one| one == kind);
    let file = |name: &str| fs::read_to_string(group.0.parent().unwrap().join(own).join(name)).unwrap();
    if limits("memory") {
        assert_eq!(file("memory.max").trim(), "67108864");
    }
    if limits("cpu") {
        assert_eq!(file("cpu.max").trim(), "50000 100000");
    }
    let said = kubectl.ok(&[
        "get",
        "node",
        NODE,
        "-o",
        "jsonpath={range .status.conditions[*]}{.type} {.status} {.message}{\"\\n\"}{end}",
    ]);
    let said = said.lines().find(|line| line.starts_with("LimitsEnforced")).unwrap();
    for kind in ["cpu", "memory", "pids"] {
        assert_eq!(said.contains(kind), !limits(kind), "{kind}: {said}");
    }

    delete_all(&cluster, &kubectl);
    wait::until("no group is left", wait::LATER, || {
        let left: Vec<_> =
            group.below().into_iter().filter(|path| path.display().to_string().contains("/pod")).collect();
        wait::check(left.is_empty(), format!("{left:?}"))
    });
}
