<?php
/* SPDX-License-Identifier: MIT */
/* An application, for FastCGI: it asks the origin the same, says who does, and hands on what comes. */
$ask = "Connection: close\r\nX-Pid: " . getmypid() . "\r\n";
foreach (['HTTP_IF_NONE_MATCH' => 'If-None-Match', 'HTTP_X_OWN' => 'X-Own',
          'CONTENT_TYPE' => 'Content-Type'] as $key => $name) {
	if (!empty($_SERVER[$key])) {
		$ask .= "$name: $_SERVER[$key]\r\n";
	}
}
$http = ['method' => $_SERVER['REQUEST_METHOD'], 'header' => $ask, 'ignore_errors' => true, 'follow_location' => 0,
	'protocol_version' => '1.1'];
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
	$http['content'] = file_get_contents('php://input');
}
$body = file_get_contents("http://$_SERVER[APP_ORIGIN]$_SERVER[REQUEST_URI]", false,
                          stream_context_create(['http' => $http]));
if ($body === false) {
	http_response_code(502);
	exit;
}
foreach ($http_response_header as $i => $line) {
	if ($i === 0) {
		http_response_code((int)explode(' ', $line)[1]);
	} elseif (!preg_match('/^(content-length|transfer-encoding|connection):/i', $line)) {
		header($line, false);
	}
}
echo $body;
