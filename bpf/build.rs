//! Compiles the BPF programs. Only UAPI headers are needed.

use libbpf_cargo::SkeletonBuilder;
use std::{env, path::PathBuf};

const SOURCE: &str = "src/bpf/dataplane.bpf.c";

fn main() {
    let object = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dataplane.bpf.o");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // Debian keeps <asm/types.h> where only the native compiler looks.
    let args =
        ["-Wall", "-Werror", "-mcpu=v3", "-I", &format!("/usr/include/{arch}-linux-gnu")].map(String::from);
    if let Err(error) = SkeletonBuilder::new().source(SOURCE).obj(&object).clang_args(args).build() {
        panic!("cannot compile {SOURCE} (is clang installed?): {error:#}");
    }
    println!("cargo:rerun-if-changed=src/bpf");
}
