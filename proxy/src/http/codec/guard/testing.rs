//! Clients for the tests of others.

use std::rc::Rc;

use super::Guard;
use crate::http::codec::HeadBytes;
use crate::time;

/// One from this address whose requests carry so many bytes.
pub(crate) fn carrying(address: &str, bytes: usize) -> Rc<Guard> {
    let guard = Guard::new(&Rc::default(), (&Rc::default(), &Rc::default()), &Rc::default(), time::now());
    guard.comes_from(address.parse().unwrap());
    guard.carries(HeadBytes::of(bytes));
    guard
}
