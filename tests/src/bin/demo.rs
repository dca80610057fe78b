//! `make demo`: plays the scene of [`tests::scene`] and says whether all went as it should.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use tests::scene::Scene;
use tests::{World, node, teardown};

const PREFIX: &str = "dataplane-demo";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        None => play(false),
        Some("--keep") => play(true),
        Some("--stop") => stop(),
        Some(other) => fail(&format!("{other}: unknown; --keep, --stop or nothing would be right")),
    }
}

fn play(keep: bool) -> ExitCode {
    if teardown::exists(PREFIX) {
        return fail("a demo is still there: `make demo-stop` removes it");
    }
    let scene = Scene::play(PREFIX);
    println!("\n==> Result\n{}", scene.table());
    let succeeded = scene.succeeded();
    if !succeeded {
        show_logs(&scene);
    }
    let keep = keep && scene.world().is_some();
    let ended = catch_unwind(AssertUnwindSafe(|| match keep {
        true => {
            explain(&scene);
            scene.keep();
        }
        false => drop(scene),
    }));
    // A world that could not be made whole has nobody to remove it.
    if !keep && teardown::exists(PREFIX) {
        stop();
    }
    if succeeded && ended.is_ok() { ExitCode::SUCCESS } else { fail("not everything was as expected") }
}

/// What the agents said last.
fn show_logs(scene: &Scene) {
    for node in scene.world().into_iter().flat_map(World::nodes) {
        let log = node.log();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- agent of {}\n{}", node.host.netns, lines[lines.len().saturating_sub(20)..].join("\n"));
    }
}

/// How to enter what was left running, and how to remove it.
fn explain(scene: &Scene) {
    let Some(world) = scene.world() else { return };
    println!("==> Everything is left running. To talk to an agent:");
    for node in world.nodes() {
        println!("    DATAPLANE_SOCKET={} {} status", node.cli.socket.display(), node::dataplane().display());
    }
    println!("    To be in a pod, or on a node:");
    let pods =
        scene.pods.iter().map(|pod| &pod.netns).filter(|netns| Path::new("/run/netns").join(netns).exists());
    for netns in pods.chain(world.nodes().map(|node| &node.host.netns)) {
        println!("    nsenter --net=/run/netns/{netns}");
    }
    println!("    Files and logs: {}\n    To remove it all: make demo-stop", world.dir().display());
}

fn stop() -> ExitCode {
    let complaints = teardown::remove(PREFIX);
    if complaints.is_empty() { ExitCode::SUCCESS } else { fail(&complaints.join("\n")) }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}
