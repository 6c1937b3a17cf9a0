"""Settings as YAML, nothing else; a package so that an installed Talkalong finds them."""
