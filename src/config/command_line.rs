//! Reads the command line and the environment. All invalid settings are reported at once, each as it was given: a flag or a variable.

use std::{
    error::Error as _,
    ffi::{OsStr, OsString},
};

use clap::{
    Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::commands::{Cli, Subcommands};

/// The subcommand of a command line without one.
const DEFAULT_SUBCOMMAND: &str = "serve";
/// A variable with another prefix is not Passbook's.
const PREFIX: &str = "PASSBOOK_";
/// Variables that are no flag: those of builds, tests and scripts.
const OTHER_PREFIXES: [&str; 3] = ["PASSBOOK_TEST_", "PASSBOOK_CHAOS_", "PASSBOOK_SCHEMATHESIS_"];
/// The least similarity (Jaro-Winkler, 0 to 1) of a known name to one that is suggested in its place.
const SIMILARITY_MIN: f64 = 0.85;

/// Parses a command line, whose first argument is the program. Returns the subcommand.
///
/// # Errors
/// A text that names every invalid setting.
///
/// # Panics
/// It does not return for help, the version, and for arguments that are not settings: it prints them and exits, as `clap` does.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Subcommands, String> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() <= 1 {
        arguments.push(DEFAULT_SUBCOMMAND.into());
    }
    let mut command = Cli::command();
    let mut invalid = vec![];
    loop {
        match command.clone().try_get_matches_from(&arguments) {
            Ok(matches) if invalid.is_empty() => {
                return Cli::from_arg_matches(&matches).map(|cli| cli.command).map_err(|error| error.to_string());
            }
            Ok(_) => return Err(invalid.join("\n")),
            Err(error) => match InvalidSetting::of(&error, &arguments) {
                Some(setting) => {
                    invalid.push(setting.sentence());
                    command = setting.remove(command, &mut arguments);
                }
                None if invalid.is_empty() => error.exit(),
                None => return Err(invalid.join("\n")),
            },
        }
    }
}

/// A sentence for each variable of the environment that looks like a setting and is none, with the name that may be meant.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let known = variables(&Cli::command());
    let mut unknown: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    unknown.retain(|name| {
        name.starts_with(PREFIX)
            && !known.contains(name)
            && !OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    unknown.sort_unstable();
    unknown
        .into_iter()
        .map(|name| match nearest(&name, &known) {
            Some(meant) => format!("{name} is not a setting; is {meant} meant?"),
            None => format!("{name} is not a setting"),
        })
        .collect()
}

/// The variables of a command and of its subcommands.
fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let scored = known.iter().map(|known| (strsim::jaro_winkler(&name[PREFIX.len()..], &known[PREFIX.len()..]), known));
    let (similarity, meant) = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (similarity >= SIMILARITY_MIN).then_some(meant)
}

/// A setting with an invalid value.
struct InvalidSetting {
    /// The flag without its dashes: `listen`.
    flag: String,
    /// Whether the value is of a flag; otherwise it is of a variable.
    is_flag: bool,
    value: String,
    reason: String,
}

impl InvalidSetting {
    /// The setting behind an error; `None` if it is another error.
    fn of(error: &clap::Error, arguments: &[OsString]) -> Option<Self> {
        if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
            return None;
        }
        let text = |kind| match error.get(kind)? {
            ContextValue::String(text) => Some(text.clone()),
            _ => None,
        };
        // `--listen <LISTEN>`
        let flag = text(ContextKind::InvalidArg)?.strip_prefix("--")?.split_whitespace().next()?.to_owned();
        let reason = match (error.source(), error.get(ContextKind::ValidValue)) {
            (Some(source), _) => source.to_string(),
            (None, Some(ContextValue::Strings(values))) => format!("possible values: {}", values.join(", ")),
            (None, _) => "a value is missing".to_owned(),
        };
        let is_flag = arguments.iter().any(|argument| is_flag(argument, &flag));
        Some(Self { is_flag, value: text(ContextKind::InvalidValue).unwrap_or_default(), reason, flag })
    }

    fn sentence(&self) -> String {
        let Self { flag, value, reason, is_flag } = self;
        match is_flag {
            true => format!("invalid value '{value}' for --{flag}: {reason}"),
            false => format!("invalid value '{value}' for {PREFIX}{}: {reason}", flag.replace('-', "_").to_uppercase()),
        }
    }

    /// Takes the setting away, so that the next error can be found.
    fn remove(&self, command: Command, arguments: &mut Vec<OsString>) -> Command {
        if !self.is_flag {
            return without_variable(command, &self.flag);
        }
        let Some(at) = arguments.iter().position(|argument| is_flag(argument, &self.flag)) else { return command };
        let flag = arguments.remove(at);
        if !flag.to_string_lossy().contains('=') && at < arguments.len() {
            arguments.remove(at);
        }
        command
    }
}

fn is_flag(argument: &OsStr, flag: &str) -> bool {
    argument.to_str().and_then(|text| text.strip_prefix("--")).is_some_and(|text| text.split('=').next() == Some(flag))
}

/// The command with an argument that no longer reads the environment, here and in its subcommands.
fn without_variable(command: Command, flag: &str) -> Command {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).map(|arg| arg.get_id().clone());
    let command = match own {
        Some(id) => command.mut_arg(id, |arg| arg.env(None::<&'static str>)),
        None => command,
    };
    command.mut_subcommands(|subcommand| without_variable(subcommand, flag))
}
