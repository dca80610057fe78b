//! `run --config-dir DIR`: one file per option, as Kubernetes mounts a ConfigMap. What the command
//! line says wins.

use super::{Cli, usage};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Adds to the arguments of `run` what its `--config-dir` holds. Other commands and arguments
/// that do not parse come back as they are.
pub(super) fn expand(args: Vec<OsString>) -> Result<Vec<OsString>, clap::Error> {
    // Options may be missing here: they may be in a file. The parse of the result is strict.
    let mut lenient = Cli::command().mut_subcommand("run", |run| run.mut_args(|arg| arg.required(false)));
    let Ok(matches) = lenient.try_get_matches_from_mut(&args) else { return Ok(args) };
    let Some(("run", given)) = matches.subcommand() else { return Ok(args) };
    let Some(dir) = given.get_one::<PathBuf>("config_dir") else { return Ok(args) };
    let run = lenient.find_subcommand("run").cloned().unwrap_or_default();
    Ok(args.into_iter().chain(from_files(dir, &run, given)?).collect())
}

/// The files of a directory as arguments, but for options that `given` has from the command line.
fn from_files(dir: &Path, run: &Command, given: &ArgMatches) -> Result<Vec<OsString>, clap::Error> {
    let fail = |path: &Path, what: &str| usage(format!("{}: {what}", path.display()));
    let io = |error: std::io::Error| fail(dir, &error.to_string());
    let mut paths: Vec<PathBuf> =
        dir.read_dir().and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()).map_err(io)?;
    paths.sort();

    let mut args = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // `..data` and its like are how a mounted ConfigMap is swapped.
        if name.starts_with("..") {
            continue;
        }
        let option = run.get_arguments().find(|arg| {
            arg.get_long() == Some(&name) && !matches!(arg.get_id().as_str(), "config_dir" | "help")
        });
        let option = option.ok_or_else(|| fail(path, "no option of `dataplane run` has this name"))?;
        if given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let text = std::fs::read_to_string(path).map_err(|error| fail(path, &error.to_string()))?;
        let values: Vec<&str> = match option.get_action() {
            ArgAction::Append => text.split([',', '\n']).map(str::trim).filter(|v| !v.is_empty()).collect(),
            _ => vec![text.trim()],
        };
        let values: Vec<OsString> =
            values.into_iter().map(|value| format!("--{name}={value}").into()).collect();
        // Alone first, so that an error names the file.
        let alone = std::iter::once(OsString::from("run")).chain(values.iter().cloned());
        run.clone().try_get_matches_from(alone).map_err(|error| fail(path, &cause(&error)))?;
        args.extend(values);
    }
    Ok(args)
}

/// What a clap error says in its first paragraph, in one line without `error: `.
fn cause(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let said = lines.collect::<Vec<_>>().join(" ");
    said.strip_prefix("error: ").unwrap_or(&said).to_owned()
}
