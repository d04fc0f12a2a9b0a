"""The live page: the picture of `safetrain watch` in a browser, served to this machine alone.

serve    the command's end: a loopback socket, uvicorn, the address to open
app      the routes: page, files, live stream, questions
guard    who may ask: Host, Origin, token and cookie; what a page may load
hub      what all tabs share: the list of jobs, one gRPC watch a job
picture  jobs and stories as JSON, in a language; pure
words    the texts of the page
answers  a question's way to the daemon and back
static/  the page itself, hand-written
"""
