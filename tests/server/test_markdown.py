"""People's and models' text as HTML: what scrolls can be reached and has a name; what would run or call home is gone."""

from __future__ import annotations

from server.markdown import to_html

CODE = '<pre tabindex="0" role="group" aria-label="Code"><code>'


def test_code_and_tables_are_boxes_that_the_keyboard_reaches() -> None:
    assert to_html("```py\n<pre>1\n```") == f"{CODE}&lt;pre&gt;1\n</code></pre>\n"
    assert to_html("    1") == f"{CODE}1\n</code></pre>\n"
    table = to_html("|a|b|\n|-|-|\n|c|d|")
    assert table.startswith('<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>')
    assert table.endswith("</table></div>\n")


def test_a_text_cannot_make_boxes_of_its_own() -> None:
    assert "<div" not in to_html('<div class="scroll" tabindex="0">x</div>')
    assert to_html('`<pre tabindex="5">`') == '<p><code>&lt;pre tabindex="5"&gt;</code></p>\n'
    assert "<pre" not in to_html("[x](<https://example.org/<pre>)")


def test_pictures_scripts_and_foreign_schemes_do_not_survive() -> None:
    assert "<img" not in to_html("![a](https://example.org/a.png)")
    assert "javascript" not in to_html("[a](javascript:alert(1))").partition("href")[2]
    assert "<script" not in to_html("<script>alert(1)</script>")
