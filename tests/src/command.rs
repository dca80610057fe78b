//! Running a command to its end.

use std::process::{Command, Output, Stdio};

/// Runs it; its output on success, else what it was and all it said.
pub fn output(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}: {status}\n{text}{}", String::from_utf8_lossy(&stderr)))
}

/// Runs `ip` with these words; panics if it fails.
pub fn ip(words: &str) -> String {
    output(Command::new("ip").args(words.split_whitespace())).unwrap_or_else(|error| panic!("{error}"))
}
