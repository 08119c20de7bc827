//! What a connection speaks, from its first bytes.

use weft::fuzz::detected;

/// Pieces that an input is cut into at most: each is looked at together with all before it.
const PIECES_MAX: usize = 256;

/// The first byte says what is looked for, the second how the rest is cut. However it is cut, the verdict is the same: what
/// has been told of a beginning is never taken back.
pub fn detect(bytes: &[u8]) {
    let [how, size, first @ ..] = bytes else { return };
    if first.is_empty() {
        // Nobody looks before something has come.
        return;
    }
    let (tls, http) = (how & 1 != 0, how & 2 != 0);
    let whole = detected(first, first.len(), tls, http);
    let size = usize::from(*size).max(first.len().div_ceil(PIECES_MAX)).max(1);
    let pieces = detected(first, size, tls, http);
    assert_eq!(whole, pieces, "in pieces of {size}");
    if first.len() >= weft::fuzz::FIRST_MESSAGE_BYTES_MAX {
        assert!(whole.is_some(), "it goes on for ever");
    }
}
