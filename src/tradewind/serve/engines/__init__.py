"""What may stand behind an endpoint beside a packaged program."""
