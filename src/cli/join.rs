//! `punchlan join`: a net.toml from a friend's invite.

use std::fs::File;
use std::io::{ErrorKind, Read, stdin};

use zeroize::Zeroizing;

use super::args::Join;
use super::{Failure, files, init, output};
use crate::config::{self, LinkError, NetConfig, PeerConfig, find_link, from_link, mask_keys};
use crate::node::{LanConfig, RelayConfig};

/// No message with an invite in it is longer.
const MAX_BYTES: u64 = 1 << 16;

pub(super) fn run(args: &Join) -> Result<(), Failure> {
    files::refuse_existing(&args.file)?;
    let text = text_with_link(args)?;
    let link = find_link(&text).ok_or_else(|| no_link(args, &text))?;
    let network = from_link(link).map_err(|error| Failure::Usage(error.to_string()))?;
    let config =
        NetConfig { network, peer: PeerConfig::default(), relay: RelayConfig::default(), lan: LanConfig::default() };
    files::write_new(&args.file, &config::to_toml(&config))?;
    init::warn_of_subnet(config.network.overlay().v4, &init::routes());
    let file = args.file.display().to_string();
    let argument = if file == config::DEFAULT_FILE { String::new() } else { format!(" {file}") };
    output::answer(&format!(
        "Wrote {file}: the network \"{}\", {}. You appear in it as \"{}\".\n\nNext:\n    sudo punchlan up{argument}",
        config.network.name,
        config.network.overlay().v4,
        config.peer.name_or_host()
    ))
}

/// The link itself, or what stands in the file or comes by stdin.
fn text_with_link(args: &Join) -> Result<Zeroizing<String>, Failure> {
    if find_link(&args.link).is_some() {
        return Ok(Zeroizing::new(args.link.clone()));
    }
    if args.link == "-" {
        return read(stdin().lock()).map_err(|error| Failure::Failed(format!("stdin could not be read: {error}")));
    }
    let shown = mask_keys(&args.link);
    File::open(&args.link).and_then(read).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::Usage(format!(
            "\"{shown}\" is neither an invite (which begins with \"punchlan://join?\") nor a file\n  \
             help: put the whole link in 'single quotes'"
        )),
        ErrorKind::PermissionDenied => Failure::Usage(format!("{shown}: you may not read this file")),
        _ => Failure::Usage(format!("{shown} could not be read: {error}")),
    })
}

fn read(source: impl Read) -> std::io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    source.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

fn no_link(args: &Join, text: &Zeroizing<String>) -> Failure {
    let from = if args.link == "-" { "what was typed".to_owned() } else { mask_keys(&args.link) };
    if config::parse(&from, text).is_ok() {
        return Failure::Usage(format!(
            "{from} is a net.toml, not an invite\n  help: `punchlan invite {from}` makes an invite of it; \
             or start with it as it is: sudo punchlan up {from}"
        ));
    }
    Failure::Usage(format!("{from}: {}", LinkError::NoLink))
}
