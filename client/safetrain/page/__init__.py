"""The live page: what `safetrain watch` shows, in a browser, served to this machine alone.

server      the command's end: a loopback socket, uvicorn, the address to open
routes      page, files, live stream, questions
access      who may ask: Host, Origin, token and cookie; what a page may load
job_feed     what all tabs share: the list of jobs, one gRPC watch a job
page_json   jobs and histories as JSON, in a language; pure
texts       the texts of the page
ask_stream  a question's way to the daemon and back
static/     the page itself, hand-written
"""
