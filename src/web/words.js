/*
 * The texts of the demo's pages, in English and in Chinese. `words` returns them in the browser's language. The pages
 * themselves are in English. In a Chinese browser, the text of each element with `data-word` is replaced.
 */
var words = (function () {
  'use strict';

  var en = {
    qr: 'QR code that opens this sign-in on your phone',
    starting: 'Getting a code',
    waiting: 'Scan with your phone',
    scanned: 'Scanned. Confirm on your phone',
    confirmed: 'Signed in as {0}',
    refused: 'Refused on the phone',
    expired: 'That code has expired; here is a new one',
    failed: 'The server did not accept the request: {0}',
    retrying: 'Connection lost; trying again',
    'retrying-2': 'The server is restarting; trying again',
    'retrying-3': 'The server is busy; trying again',
    'retrying-6': 'The server cannot reach its statuses; trying again',
    offline: 'No network; going on when it is back',
    signOut: 'Sign out',
    newCode: 'New code',

    copy: 'Copy',
    copied: 'Copied',
    selected: 'Selected',
    held: 'held open',
    later: '{0} later',
    left: 'left by the page; the server holds it until it has an answer',
    cut: 'No answer: not reachable, refused or cut off.',
    silent: 'It came after the page had stopped listening: the script looks for its function first, and stays silent.',
    'why-brief': 'wait=0: answer at once. The page asks so while it loads, and after trouble, to find out whether all is well.',
    'why-first': 'last=0: the page knows nothing yet. The server keeps the request open until there is a status.',
    'why-next': 'last is the newest version that the page has seen: only what is newer is an answer, so nothing is missed or heard twice.',
    'why0': 'A status. The page asks again at once, with this version as last.',
    'why0-final': 'A status, and final: the page need not ask again.',
    'why-1': 'Nothing came in time. The page asks again at once, and the next status finds it waiting.',
    'why-2': 'This server goes away, and says so instead of hanging up. The page asks again after retry_after_ms.',
    'why-3': 'A limit is reached. The page asks again after retry_after_ms.',
    'why-4': 'The key was deleted. The page stops.',
    'why-5': 'The request is wrong, and the message says how. The page stops.',
    'why-6': 'The store is out of reach. The page asks again after retry_after_ms.',
    'why-events': 'A stream: one request, and each newer status comes on it. A line with a colon alone shows that it is alive.',
    'why-socket': 'A socket: messages go both ways. {} asks for a sign of life, and watch says what the page knows already.',
    'why-cut': 'A script says no more than that it failed, so the page asks again: later each time, and at random.',

    ann: 'Ann',
    scanning: 'One moment',
    asking: 'Code scanned',
    sending: 'Sending',
    done: 'You are signed in on the other screen',
    doneRefused: 'Refused. Nobody was signed in',
    notWaiting: 'That page was not waiting at this moment. If it comes back within a minute, it hears of it.',
    conflict: 'This code was used on another phone',
    conflictMaybe: 'This code has been used: by your first try, or on another phone',
    gone: 'This code has expired: scan the new one',
    noCode: 'There is no code in this link: scan the one on your screen',
    mistake: 'That did not work: {0}',
    lost: 'No connection. Try again when you have one'
  };

  var zh = {
    harbour: '港湾',
    title: '登录港湾',
    pageTitle: '登录港湾：holdfast 演示',
    qr: '二维码，用手机扫描即可登录',
    starting: '正在获取二维码',
    waiting: '请用手机扫码登录',
    scanned: '已扫码，请在手机上确认',
    confirmed: '已登录：{0}',
    refused: '已在手机上拒绝',
    expired: '二维码已过期，已自动更换',
    failed: '服务器没有接受请求：{0}',
    retrying: '连接中断，正在重试',
    'retrying-2': '服务器正在重启，稍后自动重试',
    'retrying-3': '服务器繁忙，正在重试',
    'retrying-6': '服务器暂时读不到状态，正在重试',
    offline: '没有网络，恢复后自动继续',
    life: '二维码剩余有效时间',
    open: '在本机打开',
    loopback: '手机无法访问此地址。要用同一网络中的手机试用，启动服务器时请加上',
    signOut: '退出登录',
    newCode: '换一个二维码',
    small: 'holdfast 演示。“港湾”是虚构的产品。',

    wire: '网络通信',
    terminal: '用终端登录',
    terminalNote: '任何语言的后端在用户确认时只做这一件事：发一次 POST，页面就得到状态。',
    keyNote: '二维码里是 id，后端就用它设置状态。本页轮询用的 key 是签过名的 id，只留在本页：看到二维码的人听不到状态。',
    copy: '复制',
    copied: '已复制',
    selected: '已选中',
    polls: '页面发出的请求与收到的响应',
    pollsNote: '最新的在最上面。返回的脚本调用页面的函数；事件流和 WebSocket 保持打开，等待下一个状态。',
    way: '页面怎样得到状态',
    script: '脚本',
    events: '事件流',
    socket: 'WebSocket',
    wayNote: '可以随时切换，页面从已有的版本继续。字节数是收发的内容，不含头部。',
    held: '连接保持中，等待状态',
    later: '{0}后',
    left: '页面已不再等待；服务器仍保持它，直到有响应',
    cut: '没有响应：无法连接、被拒绝或中断。',
    silent: '响应到达时页面已不再等待：脚本先检查函数是否还在，不在就什么也不做。',
    'why-brief': 'wait=0：立即响应。页面加载时和出现问题之后这样请求，确认一切是否正常。',
    'why-first': 'last=0：页面还什么都不知道。在有状态之前，服务器一直保持这个请求。',
    'why-next': 'last 是页面见过的最新版本：服务器只返回比它更新的版本，所以既不会遗漏，也不会重复。',
    'why0': '一个状态。页面立即再次请求，并把这个版本作为 last。',
    'why0-final': '最终状态（final）：页面不必再请求。',
    'why-1': '这段时间没有新状态。页面立即再次请求，下一个状态到来时它正在等待。',
    'why-2': '这台服务器即将退出，会明确告知，而不是直接断开。页面在 retry_after_ms 之后再次请求。',
    'why-3': '达到上限。页面在 retry_after_ms 之后再次请求。',
    'why-4': '这个键已被删除。页面停止。',
    'why-5': '请求有错误，message 说明了原因。页面停止。',
    'why-6': '无法访问存储。页面在 retry_after_ms 之后再次请求。',
    'why-events': '事件流：一个请求，之后每个更新的状态都从这里到来。只有冒号的行表示连接还活着。',
    'why-socket': 'WebSocket：双向收发消息。{} 询问连接是否还活着，watch 说明页面已有的版本。',
    'why-cut': '脚本只能说明它失败了，所以页面会再次请求：每次间隔更久，并带一点随机。',

    phonePageTitle: '手机上的港湾：holdfast 演示',
    phoneTitle: '要在另一个屏幕上登录吗？',
    phoneSmall: 'holdfast 演示：此页面扮演手机上的应用。',
    where: '屏幕地址',
    name: '你的名字',
    ann: '小安',
    warning: '只有当二维码就在你自己的屏幕上时，才可以确认。',
    confirm: '确认登录',
    refuse: '拒绝',
    retry: '再试一次',
    scanning: '请稍候',
    asking: '已扫码',
    sending: '正在发送',
    done: '你已在另一个屏幕上登录',
    doneRefused: '已拒绝，没有人登录',
    notWaiting: '那个页面此刻没有在等待。如果它在一分钟内恢复，就会知道。',
    close: '可以关闭此页面了。',
    conflict: '此二维码已在另一部手机上使用',
    conflictMaybe: '此二维码已被使用：可能是你的上一次操作，也可能是另一部手机',
    gone: '此二维码已过期，请扫描新的二维码',
    noCode: '此链接中没有二维码信息，请扫屏幕上的二维码',
    mistake: '没有成功：{0}',
    lost: '连接失败，网络恢复后请重试'
  };

  var chinese = /^zh\b/i.test(navigator.language || '');
  var chosen = chinese ? zh : en;

  /** Returns a text, with `given` in place of `{0}`. */
  function say(name, given) { return chosen[name].replace('{0}', function () { return given; }); }

  say.has = function (name) { return name in chosen; };
  say.seconds = function (milliseconds) {
    return (milliseconds / 1000).toFixed(1) + (chinese ? ' 秒' : ' s');
  };
  say.cut = function (text, most) { return text.length > most ? text.slice(0, most) + '\u2026' : text; };

  document.documentElement.lang = chinese ? 'zh-CN' : 'en';
  if (chinese) {
    Array.prototype.forEach.call(document.querySelectorAll('[data-word]'), function (element) {
      element.textContent = say(element.getAttribute('data-word'));
    });
  }
  return say;
}());
