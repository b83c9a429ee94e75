//! Whom a client takes for its server: the one whose certificate has the fingerprint that it was given, or one that the
//! machine's roots vouch for.
//!
//! Spec: protocol.md section 2.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

/// What connections are made with. Spec: P-2-2.
pub(super) fn config(fingerprint: Option<[u8; 32]>) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = match fingerprint {
        None => builder.with_platform_verifier().map_err(io::Error::other)?.with_no_client_auth(),
        Some(expected) => {
            let algorithms = provider.signature_verification_algorithms;
            let verifier = Arc::new(Pinned { expected, algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// SHA-256 of a certificate.
pub(super) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().try_into().unwrap_or_default()
}

/// Reads `sha256:HEX`, with colons between the digits or without.
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, place) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(place..place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    expected: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = fingerprint(certificate);
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let digits: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(Error::General(format!(
            "its certificate has the fingerprint sha256:{digits}, and another is expected"
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_every_form() {
        let digits = "00ff".repeat(16);
        let expected: [u8; 32] = std::array::from_fn(|place| if place % 2 == 0 { 0 } else { 0xff });
        let colons = vec!["00:FF"; 16].join(":");
        for text in [digits.clone(), format!("sha256:{digits}"), colons] {
            assert_eq!(parse_fingerprint(&text), Some(expected), "{text}");
        }
        for text in ["", "sha256:", &digits[2..], &format!("{digits}00"), &"zz".repeat(32)] {
            assert_eq!(parse_fingerprint(text), None, "{text}");
        }
    }
}
