//! The pipeline makes no system call: a process that may not make any decides about packets.
#![allow(unsafe_code)]

use nix::libc;
use perf::pipeline::packet::{CHUNK, load};
use perf::pipeline::{Cache, SCENARIOS, Sizes, World};

const FLOWS: u32 = 1000;
const SIZES: Sizes = Sizes { rules: 100, addresses: 1000, services: 10, idle: 100 };

/// How a child process ends that does this with no system call but read, write, exit and
/// sigreturn (seccomp's strict mode): with what it returns, or killed.
fn ends(does: impl FnOnce() -> bool) -> Result<i32, i32> {
    // SAFETY: the child runs `does` on memory of its own, takes no lock that another thread could
    // have held, and ends without returning. All calls get valid arguments.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) != 0 {
                libc::_exit(2);
            }
            let right = does();
            // `_exit` of libc makes another call first, exit_group.
            libc::syscall(libc::SYS_exit, i32::from(!right));
        }
        assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
    }
}

#[test]
fn deciding_about_packets_makes_no_system_call() {
    // SAFETY: no arguments.
    assert_eq!(ends(|| unsafe { libc::getppid() } > 0), Err(libc::SIGKILL), "nobody looks");
    let world = World::new(SIZES, FLOWS);
    for (scenario, cache) in
        SCENARIOS.into_iter().flat_map(|scenario| [(scenario, Cache::On), (scenario, Cache::Off)])
    {
        let mut worker = world.worker(cache);
        let frames = scenario.frames(&mut world.worker(Cache::On), SIZES, 0..FLOWS).unwrap();
        let end = ends(|| {
            let (mut chunk, mut right) = ([0; CHUNK], true);
            for frame in frames.iter() {
                worker.process(frames.port, &mut [load(&mut chunk, frame)], |verdict| {
                    right &= scenario.expects(verdict);
                });
            }
            right
        });
        assert_eq!(end, Ok(0), "{}, {cache:?}", scenario.name);
        frames.tuples().for_each(|tuple| world.forget(&tuple));
    }
}
