//! Copies that run beside the device's other work, from page-locked memory, on a stream of their own.

use cudarc::driver::result::{self as cuda, event, stream};
use cudarc::driver::sys::{self, CUevent_flags_enum as Flags, CUevent_wait_flags_enum as WaitFlags};
use stage::Result;

use super::{bind, failed};
use crate::backend::Lane;
use crate::memory::Address;

/// Page-locked memory and two events: its copy has arrived, and the copy is no longer read. An event that was never
/// recorded counts as past.
pub(super) struct Upload {
    context: sys::CUcontext,
    stream: sys::CUstream,
    memory: *mut u8,
    capacity: usize,
    arrived: sys::CUevent,
    released: sys::CUevent,
}

// SAFETY: handles of the driver may be used from any thread that makes the context its current one, as every call here does;
// the memory is this lane's alone.
#[expect(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Send for Upload {}
// SAFETY: as above; what changes anything takes the lane alone.
#[expect(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Sync for Upload {}

/// The stream of everything else.
const DEFAULT: sys::CUstream = std::ptr::null_mut();

#[expect(unsafe_code, reason = "the driver's interface is C")]
impl Upload {
    /// Over a stream of the current context.
    pub(super) fn new(context: sys::CUcontext, stream: sys::CUstream) -> Result<Upload> {
        let event = || event::create(Flags::CU_EVENT_DISABLE_TIMING).map_err(failed("making an event"));
        let memory = std::ptr::null_mut();
        Ok(Upload { context, stream, memory, capacity: 0, arrived: event()?, released: event()? })
    }

    /// Waits until nothing is copied any more.
    fn wait(&self) -> Result<()> {
        // SAFETY: the event was made by the driver.
        unsafe { event::synchronize(self.arrived) }.map_err(failed("waiting for a copy"))
    }

    /// Gives the memory back; nothing is copied from it.
    fn unlock(&mut self) -> Result<()> {
        let memory = std::mem::replace(&mut self.memory, std::ptr::null_mut());
        self.capacity = 0;
        match memory.is_null() {
            true => Ok(()),
            // SAFETY: the driver gave it, and it is given back once.
            false => unsafe { cuda::free_host(memory.cast()) }.map_err(failed("unlocking memory")),
        }
    }
}

#[expect(unsafe_code, reason = "the driver's interface is C")]
impl Lane for Upload {
    fn room(&mut self, bytes: usize) -> Result<&mut [u8]> {
        bind(self.context)?;
        self.wait()?;
        if bytes > self.capacity {
            self.unlock()?;
            // SAFETY: `bytes` is not zero: it is more than the capacity.
            let memory = unsafe { cuda::malloc_host(bytes, 0) }.map_err(failed("locking memory"))?;
            (self.memory, self.capacity) = (memory.cast(), bytes);
        }
        if bytes == 0 {
            return Ok(&mut []);
        }
        // SAFETY: there are so many bytes, mapped by the driver, which nothing else reads or writes while the slice is held.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory, bytes) })
    }

    fn start(&mut self, to: Address, bytes: usize) -> Result<()> {
        assert!(bytes <= self.capacity, "as many bytes as there is room");
        if bytes == 0 {
            return Ok(());
        }
        bind(self.context)?;
        // SAFETY: the memory is not changed before `room` has waited for the copy, and the caller has room for it.
        unsafe {
            let from = std::slice::from_raw_parts(self.memory, bytes);
            stream::wait_event(self.stream, self.released, WaitFlags::CU_EVENT_WAIT_DEFAULT)
                .and_then(|()| cuda::memcpy_htod_async(to.0, from, self.stream))
                .and_then(|()| event::record(self.arrived, self.stream))
        }
        .map_err(failed("copying up"))
    }

    fn arrive(&mut self) -> Result<()> {
        bind(self.context)?;
        // SAFETY: the event was made by the driver.
        unsafe { stream::wait_event(DEFAULT, self.arrived, WaitFlags::CU_EVENT_WAIT_DEFAULT) }
            .map_err(failed("waiting for a copy"))
    }

    fn release(&mut self) -> Result<()> {
        bind(self.context)?;
        // SAFETY: the event was made by the driver.
        unsafe { event::record(self.released, DEFAULT) }.map_err(failed("recording an event"))
    }
}

impl Drop for Upload {
    #[expect(unsafe_code, reason = "the driver's interface is C")]
    fn drop(&mut self) {
        // A failure would be that of earlier work, which whoever waits for that work hears of.
        let _ = bind(self.context).and_then(|()| self.wait()).and_then(|()| self.unlock());
        for event in [self.arrived, self.released] {
            // SAFETY: the driver made it, and it is destroyed once.
            let _ = unsafe { event::destroy(event) };
        }
    }
}
