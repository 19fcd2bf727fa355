package volume

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxTokenAge is when a token is renewed however long it is valid.
const maxTokenAge = 24 * time.Hour

// renewAt is when a token has to be replaced: after four fifths of its life,
// at most a day after it was issued.
func renewAt(issued, expires time.Time) time.Time {
	renew := issued.Add(expires.Sub(issued) * 4 / 5)
	if limit := issued.Add(maxTokenAge); limit.Before(renew) {
		return limit
	}
	return renew
}

// currentToken reads the token file of a volume, and when it has to be
// renewed. The signature is not looked at: the agent wrote the file itself.
func currentToken(dir, path string, now time.Time) (token []byte, renew time.Time, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		return nil, time.Time{}, false
	}
	parts := strings.Split(string(data), ".")
	if len(parts) != 3 {
		return nil, time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, time.Time{}, false
	}
	var claims struct {
		Issued  int64 `json:"iat"`
		Expires int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Issued == 0 || claims.Expires == 0 || time.Unix(claims.Issued, 0).After(now.Add(time.Minute)) {
		return nil, time.Time{}, false
	}
	return data, renewAt(time.Unix(claims.Issued, 0), time.Unix(claims.Expires, 0)), true
}
