//! Where the options of roles come from: flags, else the environment, else a file.
//!
//! What the environment and the file say is put on the command line as if it had been typed, for options that were not.
//! So there is one place that knows options, and one that judges their values. Must never know: what options mean.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, parser::ValueSource};
use serde_yaml::Value;

use crate::Cli;

/// The roles that can be set up like this.
const ROLES: [&str; 4] = ["controllers", "node", "server", "up"];

/// The option that names the file.
const CONFIG: &str = "config";

/// What the names of variables begin with.
const PREFIX: &str = "CLAWBERNETES_";

const HELP: &str = "Each option can be set in three places: as a flag; by a variable of its name, such as \
    CLAWBERNETES_DATA_DIR for --data-dir; or in the YAML file of --config, as in `data-dir: /srv/claw`. A flag wins over \
    a variable, and a variable over the file.";

/// The command line with everything that it understands.
pub fn command() -> Command {
    ROLES.into_iter().fold(Cli::command(), |command, role| {
        command.mut_subcommand(role, |role| {
            let config =
                Arg::new(CONFIG).long(CONFIG).value_name("FILE").help("YAML file with options by name");
            role.arg(config).after_help(HELP)
        })
    })
}

/// The arguments, with what the environment and the file add to them.
pub fn layered(args: Vec<OsString>, env: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Vec<OsString>> {
    // Whatever is wrong with the arguments is told when all of them are together; help, for one, is an error here.
    let Ok(matches) = command().ignore_errors(true).try_get_matches_from(&args) else { return Ok(args) };
    let Some((role, typed)) =
        matches.subcommand().filter(|(role, typed)| ROLES.contains(role) && typed.subcommand().is_none())
    else {
        return Ok(args);
    };
    let command = command();
    let role = command.find_subcommand(role).context("a role that was found is there")?;
    let mut settings = match typed_config(typed).or_else(|| env(&variable(CONFIG))) {
        Some(file) => read(role, Path::new(&file))?,
        None => BTreeMap::new(),
    };
    for option in options(role) {
        if let Some(value) = env(&variable(option)) {
            let value = value.into_string().ok();
            let value = value.with_context(|| format!("{} is no text", variable(option)))?;
            settings.insert(option.to_owned(), from_text(argument(role, option)?, option, value)?);
        }
    }
    let mut args = args;
    for (option, values) in settings {
        let argument = argument(role, &option)?;
        if typed.value_source(argument.get_id().as_str()) != Some(ValueSource::CommandLine) {
            args.extend(values.into_iter().map(|value| value.on_command_line(&option)));
        }
    }
    Ok(args)
}

/// One thing said of an option.
#[derive(Debug, PartialEq)]
enum Setting {
    /// That it is on.
    On,
    /// Its value.
    Is(String),
}

impl Setting {
    fn on_command_line(self, option: &str) -> OsString {
        match self {
            Self::On => format!("--{option}").into(),
            Self::Is(value) => format!("--{option}={value}").into(),
        }
    }
}

fn typed_config(typed: &ArgMatches) -> Option<OsString> {
    typed.get_one::<String>(CONFIG).map(OsString::from)
}

/// `CLAWBERNETES_DATA_DIR` for `data-dir`.
fn variable(option: &str) -> String {
    format!("{PREFIX}{}", option.replace('-', "_").to_uppercase())
}

/// The long names of a role's own options.
fn options(role: &Command) -> impl Iterator<Item = &str> {
    role.get_arguments().filter_map(Arg::get_long).filter(|long| ![CONFIG, "help", "version"].contains(long))
}

fn argument<'a>(role: &'a Command, option: &str) -> anyhow::Result<&'a Arg> {
    let found = role.get_arguments().find(|argument| argument.get_long() == Some(option));
    found.with_context(|| format!("there is no option --{option}"))
}

/// What a variable says. Several values are separated by commas.
fn from_text(argument: &Arg, option: &str, text: String) -> anyhow::Result<Vec<Setting>> {
    match argument.get_action() {
        ArgAction::SetTrue => match &*text {
            "true" | "1" => Ok(vec![Setting::On]),
            "false" | "0" | "" => Ok(Vec::new()),
            _ => bail!("{}={text}: use true or false", variable(option)),
        },
        ArgAction::Append => Ok(text.split(',').map(|value| Setting::Is(value.to_owned())).collect()),
        _ => Ok(vec![Setting::Is(text)]),
    }
}

fn read(role: &Command, file: &Path) -> anyhow::Result<BTreeMap<String, Vec<Setting>>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("--config {shown}"))?;
    let settings: Option<BTreeMap<String, Value>> =
        serde_yaml::from_str(&text).with_context(|| format!("--config {shown}"))?;
    let settings = settings.unwrap_or_default().into_iter().map(|(key, value)| {
        let known: Vec<&str> = options(role).collect();
        if !known.contains(&&*key) {
            let (role, known) = (role.get_name(), known.join(", "));
            bail!("{shown}: unknown field \"{key}\"; `{role}` knows {known}");
        }
        let set =
            from_yaml(argument(role, &key)?, value).with_context(|| format!("{shown}: field \"{key}\""))?;
        Ok((key, set))
    });
    settings.collect()
}

fn from_yaml(argument: &Arg, value: Value) -> anyhow::Result<Vec<Setting>> {
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, Value::Bool(true)) => Ok(vec![Setting::On]),
        (ArgAction::SetTrue, Value::Bool(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => bail!("use true or false"),
        (ArgAction::Append, Value::Sequence(values)) => values.into_iter().map(scalar).collect(),
        (_, value) => scalar(value).map(|setting| vec![setting]),
    }
}

fn scalar(value: Value) -> anyhow::Result<Setting> {
    match value {
        Value::String(text) => Ok(Setting::Is(text)),
        Value::Number(number) => Ok(Setting::Is(number.to_string())),
        Value::Bool(bool) => Ok(Setting::Is(bool.to_string())),
        _ => bail!("use text, or a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments that are added to a command line.
    fn added(line: &str, env: &[(&str, &str)], file: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, file).unwrap();
        let line = line.replace("FILE", path.to_str().unwrap());
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let typed = args.len();
        let variable = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
        };
        let args = layered(args, variable).map_err(|error| format!("{error:#}"))?;
        Ok(args.into_iter().skip(typed).map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_that_over_the_file() {
        let file = "listen: 127.0.0.1:1\nnode-grace: 7\nadvertise: file\n";
        let env = [("CLAWBERNETES_LISTEN", "127.0.0.1:2"), ("CLAWBERNETES_NODE_GRACE", "8")];
        let added = added("c server --listen 127.0.0.1:3 --config FILE", &env, file).unwrap();
        assert_eq!(added, ["--advertise=file", "--node-grace=8"]);
    }

    #[test]
    fn lists_and_switches_can_be_set_everywhere_and_a_switch_can_be_set_back() {
        let file = "node-label: [a=1, b=2]\nhollow: true\nserver: https://a\n";
        assert_eq!(
            added("c node --config=FILE", &[], file).unwrap(),
            ["--hollow", "--node-label=a=1", "--node-label=b=2", "--server=https://a"]
        );
        let env = [("CLAWBERNETES_HOLLOW", "false"), ("CLAWBERNETES_NODE_LABEL", "c=3,d=4")];
        let with_env = added("c node --config=FILE", &env, file).unwrap();
        assert_eq!(with_env, ["--node-label=c=3", "--node-label=d=4", "--server=https://a"]);
        let typed = added("c node --node-label e=5 --config=FILE", &env, file).unwrap();
        assert_eq!(typed, ["--server=https://a"]);
    }

    #[test]
    fn what_the_file_says_wrong_is_named() {
        let error = added("c server --config FILE", &[], "lissen: x").unwrap_err();
        assert!(error.contains("unknown field \"lissen\"") && error.contains("listen, "), "{error}");
        let error = added("c up --config FILE", &[], "hollow: perhaps").unwrap_err();
        assert!(error.contains("field \"hollow\": use true or false"), "{error}");
        let error = added("c up --config FILE", &[], "listen: {a: b}").unwrap_err();
        assert!(error.contains("field \"listen\": use text"), "{error}");
        assert!(added("c up --config /nowhere", &[], "").unwrap_err().contains("/nowhere"));
        let error = added("c up", &[("CLAWBERNETES_RM", "maybe")], "").unwrap_err();
        assert!(error.contains("CLAWBERNETES_RM=maybe"), "{error}");
    }

    #[test]
    fn verbs_and_tasks_are_left_alone() {
        let env =
            [("CLAWBERNETES_LISTEN", "x"), ("CLAWBERNETES_DATA_DIR", "/y"), ("CLAWBERNETES_CONFIG", "/z")];
        for line in ["c get pods", "c server backup f", "c server restore f --data-dir d", "c --help", "c"] {
            assert_eq!(added(line, &env, "").unwrap(), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_the_environment_adds_is_understood() {
        let args = ["c", "node"].map(OsString::from).to_vec();
        let env = |name: &str| (name == "CLAWBERNETES_SERVER").then(|| "https://b".into());
        let args = layered(args, env).unwrap();
        assert!(command().try_get_matches_from(args).is_ok(), "a required option is there");
        assert!(command().try_get_matches_from(["c", "node"]).is_err());
    }
}
