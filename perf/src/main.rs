//! `dataplane-perf`: measurements of the dataplane.

use cap::Cap;
use clap::{Parser, Subcommand, ValueEnum};
use perf::net::{latency, throughput};
use perf::report::Environment;
use perf::{Effort, Findings, Pipeline, Progress, Replay, Report, churn, mesh, scale};
use std::alloc::System;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

/// Counts what is allocated, for the memory of tables.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// What is said of a panic without words.
const UNKNOWN: &str = "stopped for an unknown reason";

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
    /// Packets and bits per second between pods: ours, the kernel's routing, nftables, bare AF_XDP (root)
    Throughput(Effort),
    /// Requests and short connections between pods, idle and under load (root)
    Latency(Effort),
    /// All of it, in less than a quarter of an hour (root)
    All(Effort),
    /// Requests while identities, policies and backends change, and how soon changes reach packets (root)
    Churn(Effort),
    /// Throughput and memory by pods, addresses, flows, services and rules (root)
    Scale(Effort),
    /// Many remote clusters: how soon they are in, what they take, how soon their changes reach packets (root)
    Mesh(Effort),
    /// Captured packets through the pipeline, on the tables of a node: what became of each, and why
    Replay(Replay),
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// A subcommand that measures networks, and what does it.
type Network = (&'static str, fn(Effort, &Progress) -> Result<Findings, String>);

const THROUGHPUT: Network = ("throughput", throughput::run);
const LATENCY: Network = ("latency", latency::run);
const CHURN: Network = ("churn", churn::run);
const MESH: Network = ("mesh", mesh::run);
const SCALE: Network = ("scale", |effort, progress| scale::run(effort, || HEAP.allocated(), progress));

impl Command {
    /// What was measured, and what came of it; `None` if it measures nothing.
    fn run(&self, output: Output) -> Result<Option<(&'static str, Findings)>, String> {
        Ok(Some(match self {
            Command::Pipeline(pipeline) => {
                ("What the pipeline costs", pipeline.run()?.by(&pipeline.command()))
            }
            Command::Throughput(effort) => ("Throughput between pods", measure(&[THROUGHPUT], *effort)?),
            Command::Latency(effort) => ("Latency between pods", measure(&[LATENCY], *effort)?),
            Command::All(effort) => ("All measurements", all(*effort)?),
            Command::Churn(effort) => ("Traffic while everything changes", measure(&[CHURN], *effort)?),
            Command::Scale(effort) => ("What pods and tables cost", measure(&[SCALE], *effort)?),
            Command::Mesh(effort) => ("A large mesh of clusters", measure(&[MESH], *effort)?),
            Command::Replay(replay) => {
                replay.run(matches!(output, Output::Json))?;
                return Ok(None);
            }
        }))
    }
}

/// Measures networks in these ways, one after the other.
fn measure(networks: &[Network], effort: Effort) -> Result<Findings, String> {
    let progress = Progress::new(0);
    let mut findings = Findings::default();
    for (name, run) in networks {
        findings.extend(run(effort, &progress)?.by(&effort.command(name)));
    }
    Ok(findings)
}

/// Everything that needs no file to be told about.
fn all(effort: Effort) -> Result<Findings, String> {
    let mut findings = measure(&[THROUGHPUT, LATENCY, CHURN, SCALE], effort)?;
    // A million records take too long beside all else.
    findings.extend(measure(&[MESH], Effort { quick: true, ..effort })?);
    let pipeline = Pipeline::new(effort.rounds(), effort.quick);
    findings.extend(pipeline.run()?.by(&pipeline.command()));
    Ok(findings)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What builds networks panics when that fails or on Ctrl-C, and removes them while it unwinds:
    // why is said last, when all else has been said. Nobody else tells of other threads.
    panic::set_hook(Box::new(|panic| {
        if thread::current().name() != Some("main") {
            eprintln!("error: {}", panic.payload_as_str().unwrap_or(UNKNOWN));
        }
    }));
    let error = match panic::catch_unwind(|| run(&cli)) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or(UNKNOWN).to_owned()
        }
    };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn run(cli: &Cli) -> Result<(), String> {
    let environment = Environment::look();
    let Some((title, Findings { sections, goals })) = cli.command.run(cli.output)? else { return Ok(()) };
    let report = Report { title: title.to_owned(), environment, goals, sections };
    if let Some(directory) = &cli.report {
        eprintln!("report: {}", report.write(directory)?.display());
    }
    match cli.output {
        Output::Text => println!("{report}"),
        Output::Json => println!("{}", report.json()?),
    }
    Ok(())
}
