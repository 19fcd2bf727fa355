package resilience

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Server is one API server as a client reaches it.
type Server struct {
	Name string
	base string
	http *http.Client
}

// NewServer makes a client of the API server at an address, host:port. Its
// connection notices within two seconds when the other side is gone.
func NewServer(name, address string, config *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Server {
	transport := &http.Transport{
		DialContext: dial, TLSClientConfig: config, TLSHandshakeTimeout: time.Second, ForceAttemptHTTP2: true, DisableCompression: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second},
	}
	return &Server{Name: name, base: "https://" + address, http: &http.Client{Transport: transport}}
}

// outcome is what a client knows of a request after it.
type outcome int

const (
	done    outcome = iota // answered: it was made
	refused                // answered: it was not made, because of what is stored
	notMade                // it certainly had no effect, whatever the reason
	unknown                // it may have been made, or be made later
)

func (o outcome) String() string { return [...]string{"done", "refused", "not made", "unknown"}[o] }

// object is as much of a ConfigMap, of a list of them, or of a Status as the
// workload looks at.
type object struct {
	APIVersion string            `json:"apiVersion,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Metadata   metadata          `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	Items      []*object         `json:"items,omitempty"`

	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Code    int    `json:"code,omitempty"`
}

type metadata struct {
	Name            string            `json:"name,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// revision is the object's resourceVersion as a number.
func (o *object) revision() int64 {
	n, err := strconv.ParseInt(o.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// request sends one request. An answer other than success is an error, and
// unless the request cannot have had an effect its outcome is unknown.
func (s *Server) request(ctx context.Context, method, path string, query url.Values, body, into any) (outcome, error) {
	response, result, err := s.send(ctx, method, path, query, body)
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return unknown, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode/100 == 2 {
		if err := json.Unmarshal(data, into); err != nil {
			return unknown, fmt.Errorf("%s %s: %w", method, path, err)
		}
		return done, nil
	}
	return refusal(response.StatusCode), &statusError{method, path, response.StatusCode, string(data[:min(len(data), 500)])}
}

func (s *Server) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, outcome, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, notMade, fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(data)
	}
	target := s.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, notMade, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := s.http.Do(request)
	if err == nil {
		return response, unknown, nil
	}
	// What failed before there was a connection was never sent.
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return nil, notMade, err
	}
	return nil, unknown, err
}

// refusal is what an HTTP code says of a write's outcome. Codes of trouble in
// or behind the server leave it open, whatever their text promises.
func refusal(code int) outcome {
	switch code {
	case http.StatusNotFound, http.StatusConflict:
		return refused
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusGone:
		return notMade
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		return notMade
	}
	return unknown
}

// statusError is an answer other than success.
type statusError struct {
	method, path string
	code         int
	text         string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %s", e.method, e.path, e.code, http.StatusText(e.code), e.text)
}

// hasCode says whether the error is an answer with this code.
func hasCode(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

// stream opens a watch and returns its decoder.
func (s *Server) stream(ctx context.Context, path string, query url.Values) (*json.Decoder, io.Closer, error) {
	response, _, err := s.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		data, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return nil, nil, &statusError{http.MethodGet, path, response.StatusCode, string(data)}
	}
	return json.NewDecoder(response.Body), response.Body, nil
}
