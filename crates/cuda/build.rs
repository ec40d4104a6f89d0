//! Compiles the kernels as plain C, for the emulator.

fn main() {
    println!("cargo::rerun-if-changed=src/kernels");
    cc::Build::new()
        .file("src/kernels/emulator.c")
        .std("c99")
        .opt_level(3)
        .flag_if_supported("-Wno-unused-function")
        .compile("dsom_kernels");
}
