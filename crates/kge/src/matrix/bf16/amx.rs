//! The kernel for AMX: four tile registers hold sums, two hold the left operand, two the right operand.

use std::arch::asm;
use std::sync::OnceLock;

use super::pack::Tile;

/// Tells whether this process may use the tile registers: the processor has them and the system grants them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_amx() && permitted())
}

fn has_amx() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    features & AMX_BF16 != 0 && features & AMX_TILE != 0
}

/// Asks Linux for the tile registers: Linux keeps 8 KiB of tiles for a thread only if the process has asked. A system
/// older than AMX refuses.
#[expect(unsafe_code, reason = "a system call")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads none of our memory, and has no effect on a system that does not know it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// The tile registers of this thread, configured from `new` until this value is dropped.
pub(super) struct Tiles(());

impl Tiles {
    /// Configures all eight registers as 16 rows of 64 bytes.
    #[expect(unsafe_code, reason = "AMX has no stable intrinsics")]
    pub(super) fn new() -> Self {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1; // the palette
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64; // bytes in a row
            configuration.0[48 + tile] = 16; // rows
        }
        assert!(available(), "tile registers");
        // SAFETY: the processor has tiles and the system granted them (checked); 64 bytes are read.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, preserves_flags, readonly))
        };
        Tiles(())
    }

    /// Computes 32 x 32 values: `c = a·b` if `fresh`, else `c += a·b`. The rows of `c` lie `stride` values apart.
    ///
    /// # Safety
    /// `c` must be readable and writable at 32 values of 32 rows, and no other code may access them during the call.
    #[expect(unsafe_code, reason = "AMX has no stable intrinsics")]
    pub(super) unsafe fn block(&self, a: &[Tile], b: &[Tile], fresh: bool, c: *mut f32, stride: usize) {
        assert!(
            a.len() == b.len() && !a.is_empty() && a.len().is_multiple_of(2),
            "whole panels of one depth"
        );
        // SAFETY: the registers are configured as long as `self` lives. Each of the `a.len() / 2` steps reads two tiles
        // of `a` and two tiles of `b`. The caller guarantees `c`.
        unsafe {
            asm!(
                "test {fresh:e}, {fresh:e}",
                "jz 2f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{top} + {stride}]",
                "tileloadd tmm1, [{top} + {stride} + 64]",
                "tileloadd tmm2, [{bottom} + {stride}]",
                "tileloadd tmm3, [{bottom} + {stride} + 64]",
                "3:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{top} + {stride}], tmm0",
                "tilestored [{top} + {stride} + 64], tmm1",
                "tilestored [{bottom} + {stride}], tmm2",
                "tilestored [{bottom} + {stride} + 64], tmm3",
                fresh = in(reg) u32::from(fresh),
                top = in(reg) c,
                bottom = in(reg) c.wrapping_add(16 * stride),
                stride = in(reg) 4 * stride,
                row = in(reg) 64usize,
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr() => _,
                steps = inout(reg) a.len() / 2 => _,
                options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    #[expect(unsafe_code, reason = "AMX has no stable intrinsics")]
    fn drop(&mut self) {
        // SAFETY: the registers were configured by `new` on this thread (`Tiles` is neither `Send` nor `Sync`).
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}
