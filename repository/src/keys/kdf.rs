//! From a password to a key: Argon2id, whose cost stands in the key file and is bounded before it is paid.
//!
//! Spec: repository.md section 4.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use diptych_format::{Class, Error, Result, limits};
use zeroize::{Zeroize, Zeroizing};

use super::random;

/// What `algorithm` says in a key file.
pub const ALGORITHM: &str = "argon2id";

/// How a password becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kdf {
    /// Memory that it takes.
    pub memory_kib: u32,
    /// How often it goes over that memory.
    pub passes: u32,
    /// How many parts of that memory could be filled at once.
    pub lanes: u32,
    /// What makes equal passwords different keys.
    pub salt: [u8; 16],
}

impl Kdf {
    /// What new key files have: RFC 9106's choice for machines that have no memory to spare.
    pub fn generate() -> Result<Self> {
        Ok(Self { memory_kib: 64 << 10, passes: 3, lanes: 4, salt: random()? })
    }

    /// Whether the cost is within bounds and of any use. Spec: R-4-1.
    pub fn validate(&self) -> Result<()> {
        for (what, found, most) in [
            ("memory in KiB that a key file asks for", self.memory_kib, limits::KDF_MEMORY_MAX),
            ("passes that a key file asks for", self.passes, limits::KDF_PASSES_MAX),
            ("lanes that a key file asks for", self.lanes, limits::KDF_LANES_MAX),
        ] {
            if u64::from(found) > most {
                return Err(Error::limit(what, found.into(), most));
            }
        }
        self.params().map(drop)
    }

    /// Blocks of 1 KiB that are filled, one after another: what it costs to try a password.
    pub fn cost(&self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// The key that `password` makes.
    pub fn derive(&self, password: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.validate()?;
        let params = self.params()?;
        let mut memory: Vec<Block> = Vec::new();
        // A machine may have less than a key file may ask for: that is an error and no end of the process.
        memory.try_reserve_exact(params.block_count()).map_err(|_| {
            let what = format!(
                "there is not enough memory for a password: its key file asks for {} KiB",
                self.memory_kib
            );
            Error::new(Class::Io, what)
        })?;
        memory.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            password,
            &self.salt,
            &mut *key,
            &mut memory,
        );
        memory.iter_mut().for_each(Zeroize::zeroize);
        done.map_err(|error| Error::corrupt(format!("the password cannot be turned into a key: {error}")))?;
        Ok(key)
    }

    fn params(&self) -> Result<Params> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        params.map_err(|error| {
            Error::corrupt(format!("a key file asks for an argon2id that cannot be: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Kdf = Kdf { memory_kib: 64, passes: 2, lanes: 2, salt: [7; 16] };

    /// Spec: R-4-1
    #[test]
    fn costs_beyond_the_limits_are_refused_before_they_are_paid() {
        let class = |kdf: Kdf| kdf.derive(b"x").unwrap_err().class;
        assert_eq!(class(Kdf { memory_kib: (4 << 20) + 1, ..SMALL }), Class::Limit);
        assert_eq!(class(Kdf { passes: 65, ..SMALL }), Class::Limit);
        assert_eq!(class(Kdf { lanes: 65, ..SMALL }), Class::Limit);
        assert_eq!(class(Kdf { memory_kib: 15, ..SMALL }), Class::Corrupt);
        assert_eq!(class(Kdf { passes: 0, ..SMALL }), Class::Corrupt);
        assert_eq!(class(Kdf { lanes: 0, ..SMALL }), Class::Corrupt);
    }

    /// Computed with the reference implementation: `argon2 7777777777777777 -id -v 13 -t 2 -k 64 -p 2 -l 32`.
    #[test]
    fn it_is_argon2id() {
        let key = Kdf { salt: *b"7777777777777777", ..SMALL }.derive(b"password").unwrap();
        assert_eq!(
            diptych_format::Digest(*key).to_string(),
            "b083cbc7d7eb39c17bc6165b1f9fdb69bb8d48ffe257b6d4743d3609eeb652c2"
        );
    }

    #[test]
    fn every_part_of_it_counts() {
        let key = |kdf: Kdf, password: &[u8]| *kdf.derive(password).unwrap();
        let first = key(SMALL, b"password");
        assert_eq!(first, key(SMALL, b"password"));
        for other in [
            key(SMALL, b"passwore"),
            key(SMALL, b""),
            key(Kdf { salt: [8; 16], ..SMALL }, b"password"),
            key(Kdf { passes: 3, ..SMALL }, b"password"),
            key(Kdf { memory_kib: 128, ..SMALL }, b"password"),
            key(Kdf { lanes: 1, ..SMALL }, b"password"),
        ] {
            assert_ne!(first, other);
        }
        assert_ne!(Kdf::generate().unwrap().salt, Kdf::generate().unwrap().salt);
    }
}
