"""What Prometheus and Grafana need to watch a survey: when to scrape, what to be alarmed by, what to draw."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from gueststar.formats.atomic import appearing_whole

SCRAPE = """\
# To be added to prometheus.yml on the machine that runs the survey.
rule_files: [alert_rules.yaml]
scrape_configs:
  - job_name: gueststar
    scrape_interval: 15s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
    # From another machine: a token of a user in the operators' group (gueststar user token NAME --scope watch).
    # authorization: {{type: Bearer, credentials_file: /etc/prometheus/gueststar.token}}
"""

FILES = ("alert_rules.yaml", "dashboard.json")


def write_monitoring(folder: Path, *, port: int) -> list[Path]:
    """Write the files into a folder; return where they are."""
    texts = {name: (resources.files(__package__) / name).read_text() for name in FILES}
    texts["scrape.yaml"] = SCRAPE.format(port=port)
    for name, text in texts.items():
        with appearing_whole(folder / name) as temporary:
            temporary.write_text(text)
    return [folder / name for name in texts]
