"""`tailrace broker`: the broker and its registry alone, from a file, flags or both."""

from pathlib import Path

import click

from tailrace.pipeline.command_line import command


class _BrokerCommand(click.Command):
    """Adds the table of all options to `--help`."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from tailrace.pipeline.broker_file import all_options

        rows = []
        for option in all_options().values():
            default = option.default_text
            rows.append((option.name, option.documentation + (f"  [{default}]" if default else "")))
        with formatter.section("Options of FILE and of -o"):
            formatter.write_dl(rows, col_max=42)


@command("broker", cls=_BrokerCommand)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="YAML file of options by Kafka's names."
)
@click.option("--data-dir", metavar="DIR", help="Where the log lives (log.dir).")
@click.option("--listen", metavar="H:P", help="Address for clients; by default 127.0.0.1:9092.")
@click.option("--registry", metavar="H:P", help="Address of the schema registry; by default 127.0.0.1:8081.")
@click.option("--metrics", metavar="H:P", help="Address of /metrics and /health; without it there is none.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="By default text.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without TLS and authentication.")
@click.option(
    "-o", "--option", "settings", multiple=True, metavar="NAME=VALUE", help="Any option of the list below."
)
def broker(
    file: Path | None,
    data_dir: str | None,
    listen: str | None,
    registry: str | None,
    metrics: str | None,
    log_format: str | None,
    insecure: bool,
    settings: tuple[str, ...],
) -> int:
    """Run the broker and its schema registry alone.  Flags override the file."""
    from tailrace.broker.client import PLAINTEXT
    from tailrace.changes.logs import log_to_stderr
    from tailrace.pipeline.broker_file import read_broker_options
    from tailrace.pipeline.command_config import read_command_config
    from tailrace.registry.service import run

    flags: dict[str, object] = {
        "log.dir": data_dir,
        "tailrace.listen": listen,
        "tailrace.registry.listen": registry,
        "tailrace.metrics.listen": metrics,
        "tailrace.log.format": log_format,
        "tailrace.insecure": insecure or None,
    }
    options = read_broker_options(file, flags, settings)
    login = options.service.registry_login
    log_to_stderr(options.log_format)
    run(
        options.data_dir,
        listen=options.service.listen,
        registry_listen=options.service.registry_listen,
        registry_security=read_command_config(login).security if login else PLAINTEXT,
        options=options.broker,
    )
    return 0
