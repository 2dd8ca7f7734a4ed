//! Numbers as bytes: seven bits in each, the lowest first, and a bit that says whether more follow.

/// Appends a number: one byte up to 127, ten at most.
#[expect(clippy::cast_possible_truncation, reason = "seven bits")]
pub(super) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number off the front; `None`: there is no whole one.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Appends a text behind its length.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes such a text off the front; `None`: there is none, or it is too long to be a name.
pub(super) fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take(bytes)?).ok().filter(|&length| length <= TEXT_BYTES_MAX)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// Names have 64 letters at most, and the path of a socket 108.
const TEXT_BYTES_MAX: usize = 4_096;

#[cfg(test)]
#[allow(clippy::needless_for_each)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_a_number_is_none() {
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[][..]), None);
        assert_eq!(take(&mut &[0xff; 10][..]), None, "more than 64 bits");
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(numbers in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|&number| put(&mut bytes, number));
            let mut rest = &*bytes;
            prop_assert_eq!(numbers.iter().map(|_| take(&mut rest)).collect::<Option<Vec<_>>>(), Some(numbers));
            prop_assert!(rest.is_empty());
        }
    }
}
