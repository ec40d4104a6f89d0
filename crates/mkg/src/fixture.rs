//! Files for tests.

use stage::Result;
use std::path::Path;
use tempfile::TempDir;

/// A folder with these files; dropping the value removes the folder.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// The result of reading a file with this text.
pub(crate) fn written<T>(text: &str, read: impl FnOnce(&Path) -> T) -> T {
    read(&folder(&[("file.txt", text)]).path().join("file.txt"))
}

/// The message of an error about the content of that file, without its path.
pub(crate) fn complaint<T>(read: Result<T>) -> String {
    let error = read.err().expect("refused");
    assert_eq!(error.kind(), stage::Kind::Data);
    error.to_string().split_once("file.txt: ").unwrap().1.to_owned()
}
