package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// links makes links of a workload lead through the proxy.
type links struct {
	prefix string // path of the proxy, escaped, without a slash at its end
	host   string // as the client names the hub
}

// linkAttributes are the attributes of HTML that hold a URL, by element: HTML 4's list of attributes of type URI, and HTML 5's.
var linkAttributes = map[string][]string{
	"a": {"href"}, "applet": {"codebase"}, "area": {"href"}, "audio": {"src"}, "base": {"href"}, "blockquote": {"cite"},
	"body": {"background"}, "button": {"formaction"}, "command": {"icon"}, "del": {"cite"}, "embed": {"src"}, "form": {"action"},
	"frame": {"longdesc", "src"}, "head": {"profile"}, "html": {"manifest"}, "iframe": {"longdesc", "src"},
	"img": {"longdesc", "src", "usemap"}, "input": {"src", "usemap", "formaction"}, "ins": {"cite"}, "link": {"href"},
	"object": {"classid", "codebase", "data", "usemap"}, "q": {"cite"}, "script": {"src"}, "source": {"src"}, "video": {"poster", "src"},
}

// response changes an answer: its redirect, or the links in its page.
func (l links) response(resp *http.Response) error {
	if to := resp.Header.Get("Location"); to != "" {
		u, err := url.Parse(to)
		if err != nil {
			return fmt.Errorf("error trying to parse Location header: %w", err)
		}
		resp.Header.Set("Location", l.through(u))
		return nil
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "text/html") || resp.Request.Method == http.MethodHead ||
		resp.StatusCode < 200 || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	plain, err := unpacked(resp)
	if plain == nil || err != nil {
		return err
	}
	resp.Body = newPage(plain, resp.Body, l.through)
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	return nil
}

// unpacked returns the content of an answer; nil for an encoding that is not known here, which is passed on as it is.
func unpacked(resp *http.Response) (io.Reader, error) {
	switch resp.Header.Get("Content-Encoding") {
	case "":
		return resp.Body, nil
	case "gzip":
		r, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, fmt.Errorf("the answer is not the gzip that it says: %w", err)
		}
		return r, nil
	case "deflate":
		return flate.NewReader(resp.Body), nil
	}
	return nil, nil
}

// through returns a link as it leads through the proxy: one to the same host that begins with "/". All others are as they were.
func (l links) through(u *url.URL) string {
	if u.Host != "" && u.Host != l.host || !strings.HasPrefix(u.Path, "/") {
		return u.String()
	}
	path := u.EscapedPath()
	if path == l.prefix || strings.HasPrefix(path, l.prefix+"/") {
		return u.String()
	}
	out := *u
	out.RawPath = l.prefix + path
	plain, err := url.PathUnescape(out.RawPath)
	if err != nil {
		return u.String()
	}
	out.Path = plain
	return out.String()
}

// maxToken bounds one tag or text of a page, in bytes. Who sends a longer one gets the rest of the page passed on as it is.
const maxToken = 256 << 10

// page is the body of an answer with its links changed, as they come.
type page struct {
	tokens  *html.Tokenizer
	from    io.Reader     // what tokens reads
	body    io.ReadCloser // owned
	through func(*url.URL) string
	out     bytes.Buffer // changed and not yet read
	err     error
}

func newPage(from io.Reader, body io.ReadCloser, through func(*url.URL) string) *page {
	p := &page{tokens: html.NewTokenizer(from), from: from, body: body, through: through}
	p.tokens.SetMaxBuf(maxToken)
	return p
}

// Read implements io.Reader.
func (p *page) Read(b []byte) (int, error) {
	for p.out.Len() == 0 && p.err == nil && p.tokens != nil {
		p.next()
	}
	switch {
	case p.out.Len() > 0:
		return p.out.Read(b)
	case p.err != nil:
		return 0, p.err
	}
	return p.from.Read(b)
}

// next puts the next token out.
func (p *page) next() {
	kind := p.tokens.Next()
	raw := p.tokens.Raw()
	switch kind {
	case html.ErrorToken:
		p.out.Write(raw)
		if p.err = p.tokens.Err(); p.err == html.ErrBufferExceeded {
			p.out.Write(p.tokens.Buffered())
			p.tokens, p.err = nil, nil
		}
	case html.StartTagToken, html.SelfClosingTagToken:
		raw = bytes.Clone(raw) // the next call writes over it
		if tag := p.tokens.Token(); p.change(&tag) {
			p.out.WriteString(tag.String())
			return
		}
		p.out.Write(raw)
	default:
		p.out.Write(raw)
	}
}

// change changes the links of a tag, and reports whether there were any to change.
func (p *page) change(tag *html.Token) (changed bool) {
	for _, name := range linkAttributes[tag.Data] {
		for i, a := range tag.Attr {
			if a.Key != name {
				continue
			}
			u, err := url.Parse(a.Val)
			if err != nil {
				continue // no URL: the page's own affair
			}
			if to := p.through(u); to != u.String() {
				tag.Attr[i].Val, changed = to, true
			}
		}
	}
	return changed
}

// Close implements io.Closer.
func (p *page) Close() error { return p.body.Close() }
