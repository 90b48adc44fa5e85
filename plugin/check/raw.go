package check

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// postRaw sends a body that is no message, and returns the status of the answer.
func postRaw(ctx context.Context, socket, path, body string) (int, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin"+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, fmt.Errorf("it gives no answer: %w", err)
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
