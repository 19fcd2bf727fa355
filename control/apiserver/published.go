package apiserver

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// publishedIdle is how long a description of the API stays in memory when nobody
// asks for it. A person who works with kubectl asks more often.
const publishedIdle = 5 * time.Minute

// published is a handler whose content is large, always the same and seldom
// wanted: it is built when somebody asks and dropped when nobody has asked for
// publishedIdle. It is safe for concurrent use.
type published struct {
	name   string // for the log
	build  func() (http.Handler, error)
	logger *slog.Logger

	mu     sync.Mutex   // guards what follows; held while building, so that it is built once
	built  http.Handler // nil: nobody has asked lately
	expiry *time.Timer  // drops what is built
}

// ServeHTTP implements http.Handler.
func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, err := p.get()
	if err != nil {
		p.logger.Error("cannot describe the API", "document", p.name, "error", err)
		http.Error(w, "cannot describe the API; see the API server's log", http.StatusInternalServerError)
		return
	}
	handler.ServeHTTP(w, r)
}

// get returns the handler, which stays usable when it is dropped meanwhile.
func (p *published) get() (http.Handler, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.built == nil {
		built, err := p.build()
		if err != nil {
			return nil, err
		}
		p.built = built
	}
	if p.expiry == nil {
		p.expiry = time.AfterFunc(publishedIdle, p.drop)
	} else {
		p.expiry.Reset(publishedIdle)
	}
	return p.built, nil
}

// drop forgets what is built until somebody asks again.
func (p *published) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.built = nil
	if p.expiry != nil {
		p.expiry.Stop()
	}
}
