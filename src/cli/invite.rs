//! `punchlan invite`: the link that lets a friend in.

use anstyle::{AnsiColor, Style};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::args::Invite;
use super::{Failure, files, output};
use crate::config::{self, NetworkConfig};

/// Columns that every terminal has; a wider code would be broken over lines.
const TERMINAL: usize = 80;

/// Light on dark whatever the terminal's own colours are: cameras read it so.
const QR: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::BrightWhite)))
    .bg_color(Some(anstyle::Color::Ansi(AnsiColor::Black)));

pub(super) fn run(args: &Invite) -> Result<(), Failure> {
    let network = super::up::load(&args.file, "punchlan invite")?.network;
    let link = config::to_link(&network);
    if network.rendezvous.is_empty() {
        output::warn(
            "this network has no rendezvous, so friends elsewhere will not find it: add one to the file first\n  \
             help: `punchlan rendezvous --help` says how to host one",
        );
    }
    if let Some(out) = &args.out {
        files::write_new(out, &format!("{}\n", *link))?;
        return output::answer(&format!(
            "Wrote {}: the invite to \"{}\". Whoever has it is a member.\nA friend with this file types: punchlan join {}",
            out.display(),
            network.name,
            out.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    if args.plain || !output::is_terminal() {
        return output::answer(&link);
    }
    output::answer(&for_people(&network, &link))
}

fn for_people(network: &NetworkConfig, link: &str) -> String {
    let heading = output::bold(&format!("The invite to \"{}\".", network.name));
    let qr = qr_code(link).map(|qr| format!("{qr}\n\n")).unwrap_or_default();
    format!(
        "{heading} Whoever has it is a member: send it to friends alone.\n\n{qr}{link}\n\n\
         A friend types (the quotation marks matter):\n\n    punchlan join '{link}'\n    sudo punchlan up\n"
    )
}

/// The link for a phone's camera, if it fits on a terminal.
fn qr_code(link: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark); // The terminal's ink is the code's light.
    let picture = code.render::<Dense1x2>().dark_color(dark).light_color(light).build();
    let lines: Vec<String> = picture.lines().map(|line| output::styled(QR, line)).collect();
    (picture.lines().next()?.chars().count() <= TERMINAL).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NetworkKey, ServerKey};

    #[test]
    fn a_usual_invite_fits_on_a_terminal_as_a_code() {
        let mut server = config::parse_rendezvous("play.example.org").expect("place");
        server.pin = Some(ServerKey([1; 32]));
        let network = NetworkConfig {
            name: "friday".into(),
            key: NetworkKey::new([1; 32]),
            subnet: None,
            rendezvous: vec![server],
            deny: Vec::new(),
        };
        let link = config::to_link(&network);
        let code = qr_code(&link).expect("fits");
        assert!(code.lines().count() < 45, "{} lines", code.lines().count());
        assert!(for_people(&network, &link).contains(&format!("punchlan join '{}'", *link)));
        assert_eq!(qr_code(&"x".repeat(2000)), None);
        assert_eq!(qr_code(&"x".repeat(8000)), None);
    }
}
