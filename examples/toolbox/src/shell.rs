//! A shell that knows just enough for a person who looks into a container: commands with arguments, `;`, `&`, `> FILE`,
//! `>&2`, quotes, `$?`, and a prompt where there is a terminal.

use std::{
    fs::File,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

/// One command of a line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    words: Vec<String>,
    /// Not waited for.
    background: bool,
    to: To,
}

/// Where its output goes.
#[derive(Debug, Default, PartialEq, Eq)]
enum To {
    #[default]
    Stdout,
    Stderr,
    File(String),
}

/// `sh -c SCRIPT`, or lines from standard input.
pub(crate) fn run(arguments: &[String]) -> Result<u8, String> {
    let mut shell = Shell::default();
    if let [flag, script, ..] = arguments
        && flag.trim_start_matches('-') == "c"
    {
        shell.run_all(script);
        return Ok(shell.last);
    }
    let prompts = io::stdin().is_terminal();
    let mut line = String::new();
    while shell.left.is_none() {
        if prompts {
            let _ = write!(io::stdout(), "$ ").and_then(|()| io::stdout().flush());
        }
        line.clear();
        // Not kept locked: commands read the same input.
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => shell.run_all(&line),
            Err(error) => return Err(format!("sh: {error}")),
        }
    }
    Ok(shell.last)
}

#[derive(Default)]
struct Shell {
    /// How the last command ended.
    last: u8,
    /// Once it is told to exit.
    left: Option<()>,
}

impl Shell {
    fn run_all(&mut self, script: &str) {
        for step in parse(script) {
            if self.left.is_none() {
                self.last = self.run(&step).unwrap_or_else(|message| {
                    crate::complain(&message);
                    127
                });
            }
        }
    }

    fn run(&mut self, step: &Step) -> Result<u8, String> {
        let words: Vec<String> =
            step.words.iter().map(|word| word.replace("$?", &self.last.to_string())).collect();
        let Some((command, rest)) = words.split_first() else { return Ok(self.last) };
        match command.as_str() {
            "exit" => {
                self.left = Some(());
                let code = rest.first().map_or(Ok(self.last), |code| code.parse());
                code.map_err(|_| format!("exit {}: use a number up to 255", rest.join(" ")))
            }
            "cd" => {
                let to = rest.first().map_or("/", String::as_str);
                std::env::set_current_dir(to).map(|()| 0).map_err(|error| format!("cd {to}: {error}"))
            }
            _ => spawn(command, rest, step),
        }
    }
}

fn spawn(program: &str, arguments: &[String], step: &Step) -> Result<u8, String> {
    let say = |error: io::Error| format!("sh: {program}: {error}");
    let mut command = Command::new(program);
    command.args(arguments);
    match &step.to {
        To::Stdout => {}
        To::Stderr => drop(command.stdout(io::stderr())),
        To::File(path) => drop(command.stdout(File::create(path).map_err(say)?)),
    }
    if step.background {
        return command.stdin(Stdio::null()).spawn().map(|_| 0).map_err(say);
    }
    let status = command.status().map_err(say)?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

fn parse(script: &str) -> Vec<Step> {
    let (mut steps, mut step, mut redirects) = (Vec::new(), Step::default(), false);
    for token in tokens(script) {
        match token {
            Token::End { background } => {
                step.background = background;
                steps.push(std::mem::take(&mut step));
            }
            Token::Redirect => redirects = true,
            Token::ToStderr => step.to = To::Stderr,
            Token::Word(word) if std::mem::take(&mut redirects) => step.to = To::File(word),
            Token::Word(word) => step.words.push(word),
        }
    }
    steps.push(step);
    steps.retain(|step| !step.words.is_empty());
    steps
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Redirect,
    ToStderr,
    End { background: bool },
}

fn tokens(script: &str) -> Vec<Token> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = script.chars().peekable();
    while let Some(letter) = rest.next() {
        if quote == Some(letter) {
            quote = None;
            continue;
        }
        let special = if quote.is_some() { None } else { Some(letter) };
        if matches!(special, Some(' ' | '\t' | '\n' | ';' | '&' | '>')) {
            found.extend(word.take().map(Token::Word));
        }
        match special {
            Some('\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            Some(' ' | '\t') => {}
            Some('\n' | ';') => found.push(Token::End { background: false }),
            Some('&') => found.push(Token::End { background: true }),
            Some('>') if rest.next_if_eq(&'&').is_some() => {
                rest.next_if_eq(&'2');
                found.push(Token::ToStderr);
            }
            Some('>') => found.push(Token::Redirect),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    found.extend(word.map(Token::Word));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(words: &[&str], to: To, background: bool) -> Step {
        Step { words: words.iter().map(|word| (*word).to_owned()).collect(), background, to }
    }

    #[test]
    fn a_line_is_taken_apart_as_shells_do() {
        let script = "echo 'a  b' c\"d\">&2; cat > /tmp/x;sleep 9 &exit 3\n";
        let expected = [
            step(&["echo", "a  b", "cd"], To::Stderr, false),
            step(&["cat"], To::File("/tmp/x".to_owned()), false),
            step(&["sleep", "9"], To::Stdout, true),
            step(&["exit", "3"], To::Stdout, false),
        ];
        assert_eq!(parse(script), expected);
        assert_eq!(parse(" ;;\n"), []);
    }

    #[test]
    fn a_script_ends_with_the_code_it_says_or_that_of_its_last_command() {
        let code = |script: &str| run(&["-c".to_owned(), script.to_owned()]).unwrap();
        assert_eq!((code("exit 3; exit 4"), code("true; false"), code("false; exit $?")), (3, 1, 1));
        assert_eq!(code("there-is-no-such-program"), 127);
    }
}
