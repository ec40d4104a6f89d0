//! Memory on a device: arrays, matrices, lists of numbers that go up together.

use bytemuck::Pod;
use kge::Matrix;
use stage::Result;
use std::marker::PhantomData;
use std::ops::Range;

use crate::Gpu;
use crate::kernel;

/// A place in a device's memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) u64);

impl Address {
    fn plus(self, bytes: usize) -> Address {
        Address(self.0 + bytes as u64)
    }
}

/// Numbers on a device. The memory goes back when it is dropped.
pub struct Array<T> {
    gpu: Gpu,
    address: Address,
    len: usize,
    capacity: usize,
    kind: PhantomData<T>,
}

impl<T: Pod> Array<T> {
    /// No numbers yet.
    pub fn new(gpu: &Gpu) -> Self {
        Array { gpu: gpu.clone(), address: Address(0), len: 0, capacity: 0, kind: PhantomData }
    }

    /// A copy of `numbers`.
    pub fn of(gpu: &Gpu, numbers: &[T]) -> Result<Self> {
        let mut array = Array::new(gpu);
        array.write(numbers)?;
        Ok(array)
    }

    /// Makes it `len` numbers, in the memory it has if that is enough; the content is unspecified.
    pub fn resize(&mut self, len: usize) -> Result<()> {
        if len > self.capacity {
            self.release();
            self.address = self.gpu.backend().allocate(len * size_of::<T>())?;
            self.capacity = len;
        }
        self.len = len;
        Ok(())
    }

    /// Replaces the content by `numbers`.
    pub fn write(&mut self, numbers: &[T]) -> Result<()> {
        self.resize(numbers.len())?;
        match numbers {
            [] => Ok(()),
            _ => self.gpu.backend().upload(self.address, bytemuck::cast_slice(numbers)),
        }
    }

    /// Waits for the work that was given to the device, and copies all numbers into `into`.
    ///
    /// # Panics
    /// If it has another length.
    pub fn read(&self, into: &mut [T]) -> Result<()> {
        assert_eq!(into.len(), self.len, "as many numbers as the array has");
        match into {
            [] => Ok(()),
            _ => self.gpu.backend().download(self.address, bytemuck::cast_slice_mut(into)),
        }
    }

    /// The same as a vector.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut numbers = vec![T::zeroed(); self.len];
        self.read(&mut numbers)?;
        Ok(numbers)
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the number at `index` lies.
    pub(crate) fn at(&self, index: usize) -> Address {
        assert!(index <= self.len, "a number of the array");
        self.address.plus(index * size_of::<T>())
    }
}

impl<T> Array<T> {
    fn release(&mut self) {
        if self.capacity > 0 {
            self.gpu.backend().release(self.address, self.capacity * size_of::<T>());
            (self.address, self.len, self.capacity) = (Address(0), 0, 0);
        }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Numbers of which a padded row has a multiple.
pub(crate) const PADDED: usize = 8;

/// A dense row-major matrix on a device.
pub struct DeviceMatrix {
    rows: usize,
    columns: usize,
    /// Rows begin at multiples of so many numbers.
    alignment: usize,
    values: Array<f32>,
}

impl DeviceMatrix {
    /// Without rows and columns.
    pub fn new(gpu: &Gpu) -> Self {
        DeviceMatrix { rows: 0, columns: 0, alignment: 1, values: Array::new(gpu) }
    }

    /// The same, and whatever shape it takes, rows begin at multiples of 32 bytes: tensor cores want that of their factors.
    pub(crate) fn padded(gpu: &Gpu) -> Self {
        DeviceMatrix { alignment: PADDED, ..DeviceMatrix::new(gpu) }
    }

    /// A copy of a matrix.
    pub fn of(gpu: &Gpu, matrix: &Matrix<f32>) -> Result<Self> {
        let values = Array::of(gpu, matrix.values())?;
        Ok(DeviceMatrix { rows: matrix.rows(), columns: matrix.columns(), alignment: 1, values })
    }

    /// All zeros.
    pub fn zeros(gpu: &Gpu, rows: usize, columns: usize) -> Result<Self> {
        let mut zeros = DeviceMatrix::new(gpu);
        zeros.resize(rows, columns)?;
        if rows * columns > 0 {
            gpu.backend().clear(zeros.at(0), rows * columns * size_of::<f32>())?;
        }
        Ok(zeros)
    }

    /// Makes it `rows x columns`; the content is unspecified.
    pub fn resize(&mut self, rows: usize, columns: usize) -> Result<()> {
        (self.rows, self.columns) = (rows, columns);
        self.values.resize(rows * self.stride())
    }

    /// Replaces shape and content.
    ///
    /// # Panics
    /// If its rows are padded: nothing is copied up to those.
    pub fn write(&mut self, matrix: &Matrix<f32>) -> Result<()> {
        assert_eq!(self.alignment, 1, "rows without gaps");
        (self.rows, self.columns) = (matrix.rows(), matrix.columns());
        self.values.write(matrix.values())
    }

    /// Copies it into `into`, which it resizes.
    pub fn read(&self, into: &mut Matrix<f32>) -> Result<()> {
        let stride = self.stride();
        into.resize(self.rows, stride);
        self.values.read(into.values_mut())?;
        if stride > self.columns {
            // Rows move towards the front, so none is overwritten before it has moved.
            let values = into.values_mut();
            for row in 1..self.rows {
                values.copy_within(row * stride..row * stride + self.columns, row * self.columns);
            }
            into.resize(self.rows, self.columns);
        }
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Numbers from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.columns.next_multiple_of(self.alignment)
    }

    /// Where a row begins.
    pub(crate) fn at(&self, row: usize) -> Address {
        self.values.at(row * self.stride())
    }

    /// Where a number of a row lies.
    pub(crate) fn place(&self, row: usize, column: usize) -> Address {
        self.values.at(row * self.stride() + column)
    }

    /// The matrix as it is.
    pub(crate) fn view(&self) -> View {
        View {
            address: self.at(0),
            rows: self.rows,
            columns: self.columns,
            stride: self.stride(),
            transposed: false,
        }
    }

    /// The matrix, read with rows and columns exchanged.
    pub(crate) fn transposed(&self) -> View {
        self.view().transposed()
    }

    /// Some of the rows.
    pub(crate) fn rows_at(&self, range: Range<usize>) -> View {
        assert!(range.start <= range.end && range.end <= self.rows, "rows of the matrix");
        View { address: self.at(range.start), rows: range.len(), ..self.view() }
    }

    /// Some of the columns.
    pub(crate) fn columns_at(&self, range: Range<usize>) -> View {
        assert!(range.start <= range.end && range.end <= self.columns, "columns of the matrix");
        let address = self.at(0).plus(range.start * size_of::<f32>());
        View { address, columns: range.len(), ..self.view() }
    }
}

/// A matrix on a device to read, perhaps transposed. It does not keep the memory: it is made where it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) address: Address,
    /// Of the product's factor, after any exchange.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Numbers from one stored row to the next.
    pub(crate) stride: usize,
    pub(crate) transposed: bool,
}

impl View {
    pub(crate) fn transposed(self) -> View {
        View { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }
}

/// Lists of numbers that go to the device in one copy.
pub struct Lists {
    words: Vec<u32>,
    sent: Array<u32>,
}

/// The `count` rows of `from` whose numbers lie at `rows`, into a matrix it resizes.
pub(crate) fn gather(
    gpu: &Gpu,
    from: &DeviceMatrix,
    rows: Address,
    count: usize,
    into: &mut DeviceMatrix,
) -> Result<()> {
    into.resize(count, from.columns())?;
    let arguments =
        kernel::Gather { table: from.at(0), rows, into: into.at(0), width: from.columns() as u64 };
    gpu.launch(count, &arguments)
}

/// A list among [`Lists`].
#[derive(Clone, Copy, Debug)]
pub struct List(usize);

impl Lists {
    /// No lists yet.
    pub fn new(gpu: &Gpu) -> Self {
        Lists { words: Vec::new(), sent: Array::new(gpu) }
    }

    /// Forgets all lists.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// Adds where groups of these lengths start in their concatenation, and where the last one ends.
    pub(crate) fn add_starts(&mut self, lengths: impl Iterator<Item = usize>) -> List {
        let ends = lengths.scan(0, |end, length| {
            *end += length as u32;
            Some(*end)
        });
        self.add(std::iter::once(0).chain(ends))
    }

    /// Adds a list.
    pub fn add(&mut self, list: impl IntoIterator<Item = u32>) -> List {
        let from = self.words.len();
        self.words.extend(list);
        List(from)
    }

    /// Copies all lists to the device.
    pub fn send(&mut self) -> Result<()> {
        self.sent.write(&self.words)
    }

    /// Where the number at `index` of a list that was sent lies.
    pub(crate) fn at(&self, list: List, index: usize) -> Address {
        self.sent.at(list.0 + index)
    }
}
