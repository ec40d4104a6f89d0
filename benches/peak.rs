//! Time of the cores, and their peak rate with operands that are in registers.

use kge::ProductPrecision;
use std::time::Instant;

/// Seconds that pass, and seconds that the cores work for this program.
pub(crate) struct Clock {
    started: Instant,
    worked: f64,
}

impl Clock {
    pub(crate) fn now() -> Self {
        Clock { started: Instant::now(), worked: worked() }
    }

    /// Both since then; of the cores together.
    pub(crate) fn elapsed(&self) -> (f64, f64) {
        (self.started.elapsed().as_secs_f64(), worked() - self.worked)
    }
}

/// Seconds of all threads of this program, as the system counts them.
#[expect(unsafe_code, reason = "the standard library does not know this clock")]
fn worked() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the clock of this process");
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// The instructions that a precision uses here.
pub(crate) fn name(precision: ProductPrecision) -> String {
    match precision {
        ProductPrecision::Full => "f32".to_owned(),
        ProductPrecision::Bf16(kernel) => kernel.to_string(),
    }
}

/// GFLOP in a second of one core with these instructions; not a number where this bench does not know them.
pub(crate) fn rate(precision: ProductPrecision) -> f64 {
    let name = name(precision);
    let started = Clock::now();
    let done: f64 = rayon::broadcast(|_| operations(&name).unwrap_or(f64::NAN)).iter().sum();
    1e-9 * done / started.elapsed().1
}

#[cfg(not(target_arch = "x86_64"))]
fn operations(_name: &str) -> Option<f64> {
    None
}

/// Runs some milliseconds of independent operations; how many.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "runs instructions that are found at run time")]
fn operations(name: &str) -> Option<f64> {
    match name {
        // SAFETY: the processor has the instructions, as checked here or by whoever made the kernel.
        "f32" if is_x86_feature_detected!("avx512f") => Some(unsafe { x86::f32() }),
        "AVX512-BF16" => Some(unsafe { x86::bf16() }),
        "AMX" => Some(unsafe { x86::amx() }),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that the compiler must not optimise away")]
mod x86 {
    use std::arch::asm;

    const STEPS: u64 = 200_000;
    const SUMS: f64 = 24.0;

    /// Repeats an instruction on 24 sums and registers that nobody else writes.
    macro_rules! repeat {
        ($instruction:literal) => {
            // SAFETY: touches registers that are declared.
            unsafe {
                asm!(
                    "2:",
                    ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
                    concat!($instruction, " zmm\\i, zmm30, zmm31"),
                    ".endr",
                    "dec {steps}",
                    "jnz 2b",
                    steps = inout(reg) STEPS => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                    out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _,
                    out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _,
                    out("zmm22") _, out("zmm23") _,
                    options(nostack, nomem)
                );
            }
        };
    }

    /// Two operations in each of 16 lanes of `SUMS` sums.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn f32() -> f64 {
        repeat!("vfmadd231ps");
        STEPS as f64 * SUMS * 32.0
    }

    /// Four operations in each of 16 lanes of `SUMS` sums.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn bf16() -> f64 {
        repeat!("vdpbf16ps");
        STEPS as f64 * SUMS * 64.0
    }

    /// 2 x 16 x 16 x 32 operations in each of four tiles of sums. Whoever made the kernel asked the system for them.
    pub(super) unsafe fn amx() -> f64 {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64;
            configuration.0[48 + tile] = 16;
        }
        // SAFETY: reads the 64 bytes of the configuration; the compiler uses no tiles.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm6",
                "dec {steps}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &configuration,
                steps = inout(reg) STEPS => _,
                options(nostack, readonly)
            );
        }
        STEPS as f64 * 4.0 * 16_384.0
    }
}
