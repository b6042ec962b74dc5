-- wrk: one multipart upload of $CLIP as `file`, or its bytes alone where $RAW names their type.
local file = io.open(os.getenv("CLIP"), "rb")
local data = file:read("*a")
file:close()
wrk.method = "POST"
local raw = os.getenv("RAW")
if raw then
  wrk.body = data
  wrk.headers["Content-Type"] = raw
else
  wrk.headers["Content-Type"] = "multipart/form-data; boundary=b7d1"
  wrk.body = '--b7d1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    .. "Content-Type: audio/wav\r\n\r\n" .. data .. "\r\n--b7d1--\r\n"
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %f %f %f %d\n", summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
