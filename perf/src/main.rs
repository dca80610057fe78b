//! `dataplane-perf`: measurements of the dataplane.

use clap::{Args, Parser, Subcommand, ValueEnum};
use perf::report::Environment;
use perf::{Findings, Report, Sizes};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "dataplane-perf", version, about = "Measure what a packet costs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
    /// Also write a page with pictures into this directory
    #[arg(long, value_name = "DIR", global = true)]
    report: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The packet pipeline alone, in memory: nanoseconds per packet, and ratio to parsing alone
    Pipeline(Pipeline),
}

#[derive(Args)]
struct Pipeline {
    #[command(flatten)]
    sizes: Sizes,
    /// Established flows that packets come from in turns
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=50_000))]
    active: u16,
    /// Rounds; each measures baseline and scenario in turns, the ratio is their median
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Command {
    fn title(&self) -> &'static str {
        match self {
            Command::Pipeline(_) => "What the pipeline costs",
        }
    }

    fn run(&self) -> Result<Findings, String> {
        match self {
            Command::Pipeline(args) => perf::measure::pipeline(args.sizes, args.active, args.rounds),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
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

/// What is to be printed.
fn run(cli: &Cli) -> Result<String, String> {
    let environment = Environment::look();
    let Findings { sections, goals } = cli.command.run()?;
    let report = Report { title: cli.command.title().to_owned(), environment, goals, sections };
    if let Some(directory) = &cli.report {
        eprintln!("report: {}", report.write(directory)?.display());
    }
    match cli.output {
        Output::Text => Ok(report.to_string()),
        Output::Json => report.json(),
    }
}
