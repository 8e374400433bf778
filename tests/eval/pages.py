"""What a page of the report shows, read back."""

import json


def page_data(page):
    """The data that a page carries; ``page`` is the text of its file."""
    start = '<script type="application/json" id="data">'
    return json.loads(page.partition(start)[2].partition("</script>")[0])
