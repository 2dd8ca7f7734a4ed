//! The texts of a record in one place of fixed size, one behind the other, each cut to its length.

/// The texts of a record, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The words of the contract.
pub enum Name {
    RequestId,
    Listener,
    Route,
    Pool,
    /// Address of the first attempt's upstream.
    Upstream,
    Method,
    Host,
    /// Without its query.
    Path,
}

const NAMES: usize = 8;

impl Name {
    /// Bytes that are kept. Ids, names and methods fit as a rule, since they are bounded where they are read;
    /// hosts and paths that do not fit are recognised by their beginning.
    const fn bytes_max(self) -> usize {
        match self {
            Self::RequestId | Self::Host => 128,
            Self::Listener | Self::Route | Self::Pool => 64,
            Self::Upstream => 112,
            Self::Method => 16,
            Self::Path => 256,
        }
    }
}

/// All of them at their longest.
const BYTES: usize = 128 + 3 * 64 + 112 + HEAD_BYTES;

const HEAD_BYTES: usize = 16 + 128 + 256;

/// Only what is written is touched: some 100 bytes of an ordinary request.
#[derive(Clone, Debug)]
pub(super) struct Text {
    bytes: [u8; BYTES],
    /// Where each name ends, and the next begins.
    ends: [u16; NAMES],
    /// A bit for each name that was cut.
    cut: u8,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; BYTES], ends: [0; NAMES], cut: 0 }
    }
}

impl Text {
    pub(super) fn clear(&mut self) -> &mut Self {
        (self.ends, self.cut) = ([0; NAMES], 0);
        self
    }

    /// Writes the next name. Those that are passed over are empty.
    pub(super) fn put(&mut self, name: Name, text: &str) {
        let start = self.start_of(name);
        let kept = cut_to(text, name.bytes_max());
        if let Some(place) = self.bytes.get_mut(start..start + kept.len()) {
            place.copy_from_slice(kept.as_bytes());
            self.end_at(name, start + kept.len());
        }
        self.cut |= u8::from(kept.len() < text.len()) << name as u8;
    }

    /// The three last names at once: they are cut already, and stand in this order.
    pub(super) fn put_head(&mut self, head: &HeadText) {
        let start = self.start_of(Name::Method);
        let ends = head.ends.map(|end| start + usize::from(end));
        let [.., length] = head.ends.map(usize::from);
        let (place, kept) = (self.bytes.get_mut(start..start + length), head.bytes.get(..length));
        if let (Some(place), Some(kept)) = (place, kept) {
            place.copy_from_slice(kept);
            [Name::Method, Name::Host, Name::Path].into_iter().zip(ends).for_each(|(name, end)| {
                self.end_at(name, end);
            });
            self.cut |= head.cut;
        }
    }

    pub(super) fn get(&self, name: Name) -> &str {
        let end = usize::from(self.ends.get(name as usize).copied().unwrap_or(0));
        let bytes = self.bytes.get(self.start_of(name)..end).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    pub(super) const fn is_cut(&self, name: Name) -> bool {
        self.cut & 1 << name as u8 != 0
    }

    fn start_of(&self, name: Name) -> usize {
        let before = (name as usize).checked_sub(1).and_then(|before| self.ends.get(before));
        usize::from(before.copied().unwrap_or(0))
    }

    /// The names behind it are empty until they are written.
    fn end_at(&mut self, name: Name, end: usize) {
        let end = u16::try_from(end).unwrap_or(u16::MAX);
        self.ends.iter_mut().skip(name as usize).for_each(|place| *place = end);
    }
}

/// Method, host and path of a request that is under way, taken down as its head is read.
#[derive(Clone, Debug)]
pub struct HeadText {
    bytes: [u8; HEAD_BYTES],
    /// Where each of the three ends.
    ends: [u16; 3],
    cut: u8,
}

impl Default for HeadText {
    fn default() -> Self {
        Self { bytes: [0; HEAD_BYTES], ends: [0; 3], cut: 0 }
    }
}

impl HeadText {
    /// Each cut to what a record keeps of it.
    pub fn of(method: &str, host: &str, path: &str) -> Self {
        let mut head = Self::default();
        head.set(method, host, path);
        head
    }

    /// As [`HeadText::of`], in place.
    pub fn set(&mut self, method: &str, host: &str, path: &str) {
        self.cut = 0;
        let mut end = 0;
        let names = [(Name::Method, method), (Name::Host, host), (Name::Path, path)];
        for ((name, text), place) in names.into_iter().zip(&mut self.ends) {
            let kept = cut_to(text, name.bytes_max());
            if let Some(bytes) = self.bytes.get_mut(end..end + kept.len()) {
                bytes.copy_from_slice(kept.as_bytes());
            }
            self.cut |= u8::from(kept.len() < text.len()) << name as u8;
            end += kept.len();
            *place = u16::try_from(end).unwrap_or(u16::MAX);
        }
    }
}

/// The beginning of a text, whole characters of it.
fn cut_to(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Name; NAMES] = [
        Name::RequestId,
        Name::Listener,
        Name::Route,
        Name::Pool,
        Name::Upstream,
        Name::Method,
        Name::Host,
        Name::Path,
    ];

    #[test]
    fn there_is_room_for_the_longest_of_each() {
        assert_eq!(ALL.iter().map(|name| name.bytes_max()).sum::<usize>(), BYTES);
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_or_its_beginning(texts in prop::array::uniform8("\\PC{0,150}")) {
            let mut text = Text::default();
            for round in 0..2 {
                text.clear();
                let given: Vec<&str> = texts.iter().map(|text| if round == 0 { text.as_str() } else { "x" }).collect();
                let [method, host, path] = [5, 6, 7].map(|index| given.get(index).copied().unwrap_or_default());
                for (name, given) in ALL.into_iter().zip(&given).take(5) {
                    text.put(name, given);
                }
                text.put_head(&HeadText::of(method, host, path));
                for (name, given) in ALL.into_iter().zip(given) {
                    let kept = text.get(name);
                    prop_assert!(given.starts_with(kept), "{name:?}: {kept} of {given}");
                    prop_assert_eq!(kept.len() < given.len(), text.is_cut(name));
                    prop_assert!(kept.len() + 4 > given.len().min(name.bytes_max()));
                }
            }
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_empty() {
        let mut text = Text::default();
        text.put(Name::RequestId, "id");
        text.put(Name::Pool, "app");
        assert_eq!(ALL.map(|name| text.get(name)), ["id", "", "", "app", "", "", "", ""]);
    }
}
