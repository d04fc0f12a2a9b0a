"""The live page of `safetrain dashboard`, served on loopback only.

server      loopback socket, uvicorn, opening the browser
routes      page, static files, live stream, questions
access      access control: Host, Origin, token and cookie; content security policy
job_feed    shared by all tabs: the list of jobs, one gRPC watch per job
page_json   jobs and histories as JSON, in a language; pure
texts       the texts of the page
ask_stream  forwards a question to the daemon and streams the answer
static/     HTML, CSS and JavaScript
"""
