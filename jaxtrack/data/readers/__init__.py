"""One reader per published dataset layout; `jaxtrack.data.layouts` names them all."""
