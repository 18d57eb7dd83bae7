``--log-format json`` writes one flat object a line, for Loki and jq: ``time`` (ISO 8601), ``level``, ``logger``, ``message``, and the line's
fields as strings and numbers, such as ``address``, ``parent``, ``endpoint``, ``network`` and ``container``.
