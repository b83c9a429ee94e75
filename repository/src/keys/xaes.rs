//! XAES-256-GCM, as C2SP specifies it: a key for each message from the first half of its nonce, then AES-256-GCM
//! with the second. Nonces may be random for as many messages as anyone writes.
//!
//! Spec: repository.md section 4, and <https://c2sp.org/XAES-256-GCM>.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use diptych_format::{Error, Result};
use zeroize::Zeroizing;

/// Length of what precedes a ciphertext.
pub const NONCE_LENGTH: usize = 24;
/// Length of what follows it.
pub const TAG_LENGTH: usize = 16;

/// The polynomial that CMAC doubles by.
const REDUCTION: u128 = 0b1000_0111;
/// What CMAC is asked for, before the nonce: a counter and the label.
const COUNTERS: [[u8; 4]; 2] = [[0, 1, b'X', 0], [0, 2, b'X', 0]];

/// A key that seals any number of messages. It is wiped when it is dropped.
pub struct SealKey {
    cipher: Aes256,
    /// CMAC's subkey: derived from the key alone, so it is made once.
    subkey: Zeroizing<[u8; 16]>,
    #[cfg(test)]
    nonce: Option<[u8; NONCE_LENGTH]>,
}

impl SealKey {
    /// The key with these bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(&(*key).into());
        let mut block = [0; 16].into();
        cipher.encrypt_block(&mut block);
        let block = u128::from_be_bytes(block.into());
        let carry = if block >> 127 == 1 { REDUCTION } else { 0 };
        Self {
            cipher,
            subkey: Zeroizing::new((block << 1 ^ carry).to_be_bytes()),
            #[cfg(test)]
            nonce: None,
        }
    }

    /// The same key with a nonce that is not random: what is sealed can be compared.
    #[cfg(test)]
    pub(crate) fn with_nonce(self, nonce: [u8; NONCE_LENGTH]) -> Self {
        Self { nonce: Some(nonce), ..self }
    }

    /// Seals the bytes in the middle of `place`, which has room for the nonce before them and for the tag behind.
    /// Spec: R-4-5, R-4-6.
    pub fn seal(&self, place: &mut [u8], aad: &[u8]) -> Result<()> {
        let room = || Error::corrupt("there is no room to seal a message in");
        let (nonce, rest) = place.split_first_chunk_mut::<NONCE_LENGTH>().ok_or_else(room)?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_LENGTH>().ok_or_else(room)?;
        *nonce = self.new_nonce()?;
        let (key, half) = self.message_key(nonce)?;
        let sealed = key.seal_in_place_separate_tag(half, Aad::from(aad), text);
        tag.copy_from_slice(sealed.map_err(|_| Error::corrupt("a message is too long to seal"))?.as_ref());
        Ok(())
    }

    /// Opens what [`Self::seal`] has made; none if the key or the associated data is another or any bit has changed.
    pub fn open<'a>(&self, sealed: &'a mut [u8], aad: &[u8]) -> Option<&'a mut [u8]> {
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_LENGTH>()?;
        let (key, half) = self.message_key(nonce).ok()?;
        key.open_in_place(half, Aad::from(aad), rest).ok()
    }

    /// Seals a copy of `text`.
    pub fn seal_copy(&self, text: &[u8], aad: &[u8]) -> Result<Vec<u8>> {
        let mut place = vec![0; NONCE_LENGTH + text.len() + TAG_LENGTH];
        if let Some(middle) = place.get_mut(NONCE_LENGTH..NONCE_LENGTH + text.len()) {
            middle.copy_from_slice(text);
        }
        self.seal(&mut place, aad)?;
        Ok(place)
    }

    fn new_nonce(&self) -> Result<[u8; NONCE_LENGTH]> {
        #[cfg(test)]
        if let Some(nonce) = self.nonce {
            return Ok(nonce);
        }
        super::random()
    }

    /// The key of one message, and the half of its nonce that is left for AES-GCM.
    fn message_key(&self, nonce: &[u8; NONCE_LENGTH]) -> Result<(LessSafeKey, Nonce)> {
        let (context, half) = nonce.split_at(NONCE_LENGTH / 2);
        let mut key = Zeroizing::new([0; 32]);
        for (counter, out) in COUNTERS.iter().zip(key.chunks_exact_mut(16)) {
            let message = counter.iter().chain(context);
            let mut block = [0; 16];
            block.iter_mut().zip(message).zip(&*self.subkey).for_each(|((b, m), k)| *b = m ^ k);
            let mut block = block.into();
            self.cipher.encrypt_block(&mut block);
            out.copy_from_slice(&block);
        }
        let unusable = |_| Error::unsupported("the machine's AES-256-GCM cannot be used");
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(unusable)?;
        Ok((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(half).map_err(unusable)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shake::Shake128;
    use shake::digest::{ExtendableOutput, Update, XofReader};

    fn seal(key: &[u8; 32], nonce: &[u8; 24], text: &[u8], aad: &[u8]) -> Vec<u8> {
        let key = SealKey::new(key).with_nonce(*nonce);
        let mut sealed = key.seal_copy(text, aad).unwrap();
        let out = sealed[NONCE_LENGTH..].to_vec();
        assert_eq!(key.open(&mut sealed, aad).unwrap(), text);
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of C2SP: one without and one with a carry out of the subkey. Spec: R-4-5
    #[test]
    fn the_published_vectors() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, aad, expected) in [
            (1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            assert_eq!(hex(&seal(&[key; 32], nonce, b"XAES-256-GCM", aad.as_bytes())), expected);
        }
    }

    fn accumulated(count: usize) -> String {
        let mut random = Shake128::default().finalize_xof();
        let mut sum = Shake128::default();
        let mut length = [0];
        for _ in 0..count {
            let (mut key, mut nonce) = ([0; 32], [0; 24]);
            random.read(&mut key);
            random.read(&mut nonce);
            let mut bytes = || {
                random.read(&mut length);
                let mut bytes = vec![0; length[0].into()];
                random.read(&mut bytes);
                bytes
            };
            let (text, aad) = (bytes(), bytes());
            sum.update(&seal(&key, &nonce, &text, &aad));
        }
        let mut out = [0; 32];
        sum.finalize_xof().read(&mut out);
        hex(&out)
    }

    #[test]
    fn the_published_sum_of_ten_thousand() {
        let expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939";
        assert_eq!(accumulated(10_000), expected);
    }

    #[test]
    fn nonces_are_random() {
        let key = SealKey::new(&[9; 32]);
        let nonces: std::collections::HashSet<Vec<u8>> =
            (0..100).map(|_| key.seal_copy(b"same", b"").unwrap()[..NONCE_LENGTH].to_vec()).collect();
        assert_eq!(nonces.len(), 100);
    }

    #[test]
    fn nothing_that_was_changed_is_opened() {
        let key = SealKey::new(&[9; 32]);
        let sealed = key.seal_copy(b"text", b"aad").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&mut changed, b"aad").is_none(), "{bit}");
        }
        for end in 0..sealed.len() {
            assert!(key.open(&mut sealed[..end].to_vec(), b"aad").is_none(), "{end}");
        }
        assert!(key.open(&mut sealed.clone(), b"aae").is_none());
        assert!(SealKey::new(&[8; 32]).open(&mut sealed.clone(), b"aad").is_none());
        assert_eq!(key.open(&mut sealed.clone(), b"aad").unwrap(), b"text");
        assert!(key.seal(&mut [0; NONCE_LENGTH + TAG_LENGTH - 1], b"").is_err());
    }
}
