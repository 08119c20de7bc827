//! Recordings that are cut or damaged.

use xds_client::stream::{Declared, RESPONSE_BYTES_MAX, read};

use crate::shared::shared;

#[test]
fn a_recording_that_is_cut_is_no_recording() {
    let Some(shared) = shared("xds/gateway/stream.bin") else { return };
    let whole = shared.bytes("xds/gateway/stream.bin");
    assert!(read(&whole).is_ok());
    for cut in [1, 3, 4, 100, whole.len() - 1] {
        let broken = read(&whole[..cut]).unwrap_err();
        assert!(broken.reason.contains("ends within"), "{broken}");
    }
    assert_eq!(read(&[]), Ok(Vec::new()));
    let long = (RESPONSE_BYTES_MAX + 1).to_be_bytes();
    assert!(read(&long).unwrap_err().reason.contains("at most"));
    // A tag without its field.
    let broken = read(&[0, 0, 0, 1, 0x0a]).unwrap_err();
    assert_eq!(broken.frame, 0);
}

/// A damaged resource is refused alone: whatever a byte becomes, nothing panics, and what is beside it stays.
#[test]
fn damage_is_of_one_resource() {
    let Some(shared) = shared("xds/gateway/stream.bin") else { return };
    let whole = shared.bytes("xds/gateway/stream.bin");
    let undamaged = Declared::of(read(&whole).expect("a recording")).entries.len();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(151) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let Ok(responses) = read(&damaged) else { continue };
        let declared = Declared::of(responses);
        let count = declared.refused().count();
        assert!(count <= undamaged);
        refused += count;
        // It is in force without what was refused.
        let update = declared.update();
        assert!(update.clusters.len() + update.listeners.len() + count > 0);
    }
    assert!(refused > 20, "{refused}");
}
