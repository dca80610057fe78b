//! `dataplane-perf`: measurements of the dataplane.

use clap::{Parser, Subcommand, ValueEnum};
use perf::{Report, Sizes};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "dataplane-perf", version, about = "Measure what a packet costs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The packet pipeline alone, in memory: nanoseconds per packet, and ratio to parsing alone
    Pipeline {
        #[command(flatten)]
        sizes: Sizes,
        /// Established flows that packets come from in turns
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=50_000))]
        active: u16,
        /// Rounds; each measures baseline and scenario in turns, the ratio is their median
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Form of the report
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is not a release build, its numbers say nothing");
    }
    let Command::Pipeline { sizes, active, rounds, output } = Cli::parse().command;
    match perf::measure::pipeline(sizes, active, rounds).and_then(|report| render(&report, output)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn render(report: &Report, output: Output) -> Result<String, String> {
    match output {
        Output::Text => Ok(report.to_string()),
        Output::Json => serde_json::to_string_pretty(report).map_err(|error| error.to_string()),
    }
}
