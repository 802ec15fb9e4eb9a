"""Attachments: what of them reaches a model, and that they stay what they were."""

import base64

from tests.conftest import Lab

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")

TEXT = """
workflow: w
model: m
nodes:
  read: {llm: {prompt: "{{ task_query }}: {% for file in attachments %}{{ file.name }}={{ file.text }};{% endfor %}"}}
  blind: {after: read, llm: {prompt: "no files here"}}
"""


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of text."""
    content = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (table, len(body))


def seen(request):
    """What the model is shown."""
    content = request.messages[-1]["content"]
    return content if isinstance(content, str) else f"{content[0]['text']} + {[part['image_url']['url'][:22] for part in content[1:]]}"


def test_text_and_pdf_reach_the_prompt_as_text_and_images_as_parts(lab: Lab):
    """Only a node that asks for the attachments is shown them; a rerun has the same ones."""
    lab.write("note.txt", "a note")
    (lab.folder / "order.pdf").write_bytes(pdf("Order 4711"))
    (lab.folder / "scan.png").write_bytes(PIXEL)
    first = lab.run(TEXT, [{"id": "t0", "task_query": "see", "attachments": ["note.txt", "order.pdf", "scan.png"]}], seen)
    for name in ("note.txt", "order.pdf", "scan.png"):
        (lab.folder / name).unlink()
    again = lab.rerun(first, ["t0"], first.record.plan, seen)
    third = lab.rerun(again, ["t0"], first.record.plan, seen)

    assert {lab.steps(run, "read")["t0"]["output"] for run in (first, again, third)} == {
        '{"text": "see: note.txt=a note;order.pdf=Order 4711;scan.png=; + [\'data:image/png;base64,\']"}'
    }
    assert lab.steps(first, "blind")["t0"]["output"] == '{"text": "no files here"}'


def test_an_attachment_that_no_model_reads_fails_its_row_alone(lab: Lab):
    """The reason says what reaches a model."""
    (lab.folder / "a.bin").write_bytes(b"\0\1")
    run = lab.run(TEXT, [{"id": "t0", "task_query": "x", "attachments": ["a.bin"]}, {"id": "t1", "task_query": "y"}], seen)
    steps = lab.steps(run, "read")

    assert steps["t0"]["error"] == "the attachment 'a.bin' is application/octet-stream; text, PDF and images reach a model"
    assert steps["t1"]["outcome"] == "done"
