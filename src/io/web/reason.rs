//! Why a web server is not reached, and why a certificate's files do not do: in words that say what to do.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::path::Path;

use tokio_rustls::rustls::pki_types::pem;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use tokio_tungstenite::tungstenite::Error as WebError;
use tokio_tungstenite::tungstenite::http::StatusCode;

/// No TLS with `host`.
pub(super) fn of_tls(error: &io::Error, host: &str) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(TlsError::InvalidCertificate(why)) => of_certificate(why, host),
        Some(TlsError::InvalidMessage(_)) => NO_TLS.to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == ErrorKind::UnexpectedEof => NO_TLS.to_owned(),
        None => error.to_string(),
    }
}

const NO_TLS: &str = "what answers there speaks no TLS: check the port behind wss:// in net.toml";

fn of_certificate(why: &CertificateError, host: &str) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Other, UnknownIssuer, UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    match why {
        Expired | ExpiredContext { .. } => {
            "its certificate has expired: whoever hosts it must renew it, unless this machine's clock is wrong"
                .to_owned()
        }
        NotValidYet | NotValidYetContext { .. } => {
            "its certificate is not valid yet: check this machine's clock".to_owned()
        }
        // By the name of one that is trusted, and not by its key: made by somebody, or made anew.
        UnknownIssuer | BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate is of no authority that this system trusts: whoever hosts it gets one that is, or name a \
             file of that authority's certificates in SSL_CERT_FILE"
                .to_owned()
        }
        NotValidForName | NotValidForNameContext { .. } => format!(
            "its certificate is not for {host}: write the name that it is for behind wss:// in net.toml, if that leads \
             there"
        ),
        Other(other) if other.0.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is one of an authority, not of a server: whoever hosts it makes it with CA:FALSE"
                .to_owned()
        }
        other => format!("its certificate does not do: {other}"),
    }
}

/// TLS, and no WebSocket under `path`.
pub(super) fn of_web_socket(error: &WebError, path: &str) -> String {
    match error {
        WebError::Http(answer) => match answer.status() {
            status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                format!("a web server is there, but no rendezvous behind it: it answers {status}")
            }
            status => format!(
                "a web server is there, but it passes on no WebSockets for {path}: it answers {status}; check the path in \
                 net.toml"
            ),
        },
        other => other.to_string(),
    }
}

/// A file is not what it should hold, in PEM.
pub(super) fn of_file(file: &Path, what: &str, error: &pem::Error) -> String {
    let shown = file.display();
    match error {
        pem::Error::Io(error) if error.kind() == ErrorKind::NotFound => {
            format!("{what} {shown}: there is no such file")
        }
        pem::Error::Io(error) if error.kind() == ErrorKind::PermissionDenied => format!(
            "{what} {shown}: this user may not read it (conf/punchlan-rendezvous.service shows how a service gets it)"
        ),
        pem::Error::Io(error) => format!("{what} {shown}: {error}"),
        pem::Error::NoItemsFound => format!("{what} {shown}: there is none in it, in PEM (-----BEGIN …-----)"),
        other => format!(
            "{what} {shown}: this is no PEM: {}",
            other.source().map_or_else(|| other.to_string(), |s| s.to_string())
        ),
    }
}

/// Both were read, and do not go together.
pub(super) fn of_both(certificate: &Path, key: &Path, error: &TlsError) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    match error {
        TlsError::InconsistentKeys(_) => {
            format!(
                "[tls] the key in {key} is not that of the certificate in {certificate}: name two that were made together"
            )
        }
        other => format!("[tls] the certificate in {certificate} and the key in {key} do not do: {other}"),
    }
}
