//! The hash of `consistent_hash`: of a request's key, and of an upstream's address.

use super::randoms::{GOLDEN, mix};

/// Hashes a key or an address: the same in every process, on every machine, in every release, so that
/// several proxies, and the same one after a restart, send a key to the same upstream.
///
/// Not for secrets and not against collisions made on purpose: who wants to load one upstream can
/// send it one key as well, and the bounded load of the strategy answers that.
pub fn hash(bytes: &[u8]) -> u64 {
    let seed = mix(bytes.len() as u64 ^ GOLDEN);
    bytes.chunks(8).fold(seed, |state, chunk| mix((state ^ word(chunk)).wrapping_mul(GOLDEN)))
}

/// Up to eight bytes as a number, the first one lowest.
fn word(chunk: &[u8]) -> u64 {
    chunk.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here would move every key of every user at the next upgrade.
    #[test]
    fn the_hash_stays_what_it_was() {
        assert_eq!(
            [hash(b""), hash(b"10.0.0.1:80"), hash(b"user-42")],
            [16_294_208_416_658_607_535, 10_969_541_606_627_624_691, 8_888_681_601_951_784_503]
        );
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(b"10.0.0.1:80"), hash(b"10.0.0.1:81"));
    }

    #[test]
    fn similar_keys_scatter() {
        let mut counts = [0_u32; 16];
        for key in 0..16_000_u32 {
            let top = usize::try_from(hash(format!("user-{key}").as_bytes()) >> 60).unwrap_or(0);
            counts[top] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
