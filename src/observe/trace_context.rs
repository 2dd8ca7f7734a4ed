//! Trace Context (W3C): to which trace a request belongs, and who its parent is.

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Never zero.
    pub trace_id: u128,
    /// The sender's span; never zero.
    pub span_id: u64,
    /// Whether the sender records the trace.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads one strictly: lower case, all of its parts, nothing but zeros in none. Of a later version than ours,
    /// what ours knows is read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let [version, trace_id, span_id, flags] = parts(known)?;
        let version = hexadecimal(version)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        let (trace_id, span_id) = (hexadecimal(trace_id)?, u64::try_from(hexadecimal(span_id)?).ok()?);
        let is_sampled = hexadecimal(flags)? & 1 == 1;
        (is_whole && trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled })
    }

    /// As version 00 writes it.
    pub fn text(&self) -> String {
        let Self { trace_id, span_id, is_sampled } = self;
        format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*is_sampled))
    }
}

/// Version, trace, span and flags, each of its length, with a dash between two.
fn parts(text: &[u8]) -> Option<[&[u8]; 4]> {
    let dashes = [2, 35, 52].iter().all(|&place| text.get(place) == Some(&b'-'));
    dashes.then_some([text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..)?])
}

fn hexadecimal(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parsed(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_valid_one_is_read_and_written_as_it_was() {
        let parent = parsed(VALID).map(|parent| (parent.is_sampled, parent.text()));
        assert_eq!(parent, Some((true, VALID.to_owned())));
        let unsampled = VALID.replace("-01", "-00");
        assert_eq!(parsed(&unsampled).map(|parent| parent.text()), Some(unsampled));
    }

    /// Cases of the test suite of the W3C, in short.
    #[test]
    fn what_is_not_well_formed_is_none() {
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0X",
            ".0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_ours_goes() {
        for later in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        ] {
            assert_eq!(parsed(later), parsed(VALID), "{later}");
        }
        // Of flags that we do not know, none is passed on.
        let flags = parsed(&VALID.replace("-01", "-ff")).map(|parent| parent.text());
        assert_eq!(flags.as_deref(), Some(VALID));
    }
}
