//! Tokens of manager log-ins: JWT with HS256 and nothing else (RFC 7519, RFC 7515).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest token that is looked at, in bytes.
const SIZE_MAX: usize = 4096;

/// What a token of ours says of itself: `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// What a log-in puts into a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Who issued it; not looked at again.
    #[serde(default)]
    pub(super) iss: String,
    /// Unix seconds from which on it is void.
    pub(super) exp: i64,
    /// Unix seconds at which it was issued; not looked at again, for clocks of nodes differ.
    #[serde(default)]
    pub(super) iat: i64,
    /// Whose.
    #[serde(default)]
    pub(super) username: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

/// Why a token is refused. Says nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtError {
    /// Not three parts of base64url, or too long.
    #[error("the token is malformed")]
    Malformed,
    /// `none`, or another algorithm than ours.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// Signed with another key, or changed.
    #[error("the token's signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("the token is expired")]
    Expired,
    /// It names nobody, or has no end.
    #[error("Invalid jwt token")]
    Claims,
}

fn mac(key: &[u8], text: &str) -> Option<Hmac<Sha256>> {
    // A key of any length is fine.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

/// A token with these claims.
pub(super) fn sign(claims: &Claims, key: &[u8]) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).ok()?);
    let signed = format!("{HEADER}.{claims}");
    let signature = mac(key, &signed)?.finalize().into_bytes();
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// What a token says, if this key signed it and its time is not over. The signature is compared in
/// constant time, and before anything that it covers is believed.
pub(super) fn verify(token: &str, key: &[u8], now_s: i64) -> Result<Claims, JwtError> {
    if token.len() > SIZE_MAX {
        return Err(JwtError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
    if claims.contains('.') {
        return Err(JwtError::Malformed);
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed);
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
    if header.alg != "HS256" {
        return Err(JwtError::Algorithm);
    }
    let signature = decode(signature)?;
    mac(key, signed)
        .and_then(|mac| mac.verify_slice(&signature).ok())
        .ok_or(JwtError::Signature)?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Claims)?;
    if claims.exp <= now_s {
        return Err(JwtError::Expired);
    }
    if claims.username.is_empty() {
        return Err(JwtError::Claims);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn claims() -> Claims {
        Claims { iss: "us".to_owned(), exp: 200, iat: 100, username: "guest".to_owned() }
    }

    fn forged(header: &str, claims: &str, key: &[u8]) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = mac(key, &signed).unwrap().finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let token = sign(&claims(), b"key").unwrap();
        assert_eq!(verify(&token, b"key", 199), Ok(claims()));
        assert_eq!(verify(&token, b"key", 200), Err(JwtError::Expired));
        assert_eq!(verify(&token, b"kez", 199), Err(JwtError::Signature));
    }

    /// The example of RFC 7515, appendix A.1, with its key: signed with a line break in the header.
    #[test]
    fn the_signature_is_rfc_7515s() {
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(verify(token, &key, 0), Err(JwtError::Claims), "signed well, names nobody");
        assert_eq!(verify(&token.replace("dBjf", "dBjg"), &key, 0), Err(JwtError::Signature));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let token = sign(&claims(), b"key").unwrap();
        for place in 0..token.len() {
            for byte in [b'A', b'B', b'.', b'='] {
                let mut bytes = token.clone().into_bytes();
                if std::mem::replace(bytes.get_mut(place).unwrap(), byte) != byte {
                    let changed = String::from_utf8(bytes).unwrap();
                    assert!(verify(&changed, b"key", 150).is_err(), "{changed}");
                }
            }
            assert!(verify(token.get(..place).unwrap(), b"key", 150).is_err());
        }
        assert!(verify(&format!("{token}x"), b"key", 150).is_err());
    }

    #[test]
    fn forgeries_are_refused() {
        let good = r#"{"username":"guest","exp":200}"#;
        let hs256 = r#"{"alg":"HS256"}"#;
        assert!(verify(&forged(hs256, good, b"key"), b"key", 150).is_ok());
        for (header, body, error) in [
            (r#"{"alg":"none"}"#, good, JwtError::Algorithm),
            (r#"{"alg":"None"}"#, good, JwtError::Algorithm),
            (r#"{"alg":"hs256"}"#, good, JwtError::Algorithm),
            (r#"{"alg":"HS512"}"#, good, JwtError::Algorithm),
            (r#"{"alg":"RS256"}"#, good, JwtError::Algorithm),
            ("{}", good, JwtError::Malformed),
            ("x", good, JwtError::Malformed),
            (hs256, r#"{"username":"guest"}"#, JwtError::Claims),
            (hs256, r#"{"username":"guest","exp":"200"}"#, JwtError::Claims),
            (hs256, r#"{"username":"guest","exp":1e400}"#, JwtError::Claims),
            (hs256, r#"{"exp":200}"#, JwtError::Claims),
            (hs256, r#"{"exp":200,"username":""}"#, JwtError::Claims),
            (hs256, "[]", JwtError::Claims),
            (hs256, r#"{"username":"guest","exp":-1}"#, JwtError::Expired),
        ] {
            let token = forged(header, body, b"key");
            assert_eq!(verify(&token, b"key", 150), Err(error), "{header} {body}");
        }
        let unsigned = forged(r#"{"alg":"none"}"#, good, b"");
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        assert_eq!(verify(&unsigned, b"key", 150), Err(JwtError::Algorithm));
        let long = format!("{}.{}", "a".repeat(SIZE_MAX), forged(hs256, good, b"key"));
        for text in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "a..c", &long] {
            assert_eq!(verify(text, b"key", 150), Err(JwtError::Malformed), "{text}");
        }
    }
}
